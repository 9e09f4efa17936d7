#!/usr/bin/env bash
# curl.sh HOST:PORT...   reads a page of each and posts to it
set -euo pipefail
for destination; do
  curl --silent --show-error --fail --max-time 20 "http://$destination/page?by=curl"
  curl --silent --show-error --fail --max-time 20 --data "posted by curl" "http://$destination/page"
done
