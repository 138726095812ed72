#!/bin/sh
printf '{"status":"ok","result":"one"}\n{"status":"ok","result":"two"}\n'
