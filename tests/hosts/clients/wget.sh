#!/usr/bin/env bash
# wget.sh HOST:PORT...   reads a page of each and posts to it
set -euo pipefail
for destination; do
  wget --quiet --tries=1 --timeout=20 --output-document=- "http://$destination/page?by=wget"
  wget --quiet --tries=1 --timeout=20 --output-document=- --post-data="posted by wget" "http://$destination/page"
done
