#!/bin/sh
echo "config.api_key is missing" >&2
exit 78
