#!/usr/bin/env bash
# redis.sh HOST:PORT...   writes a key of each and reads it back
set -euo pipefail
for destination; do
  host=${destination%:*} port=${destination##*:}
  host=${host#[} host=${host%]}
  printf '%s\n' "SET greeting 'hello, $destination'" "GET greeting" "INCRBY visits 0" "ECHO bye" | redis-cli -e -h "$host" -p "$port"
done
