#!/bin/sh
echo "Traceback (most recent call last):"
echo "diagnosis on stderr" >&2
