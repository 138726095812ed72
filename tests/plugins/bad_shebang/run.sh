printf '{"status":"ok","result":"never"}'
