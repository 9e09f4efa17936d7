#!/usr/bin/env bash
# psql.sh HOST:PORT...   writes a table of each and reads it back, row by row and in bulk
set -euo pipefail
for destination; do
  host=${destination%:*} port=${destination##*:}
  host=${host#[} host=${host%]}
  psql --no-psqlrc --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 \
    "host=$host port=$port user=postgres dbname=postgres connect_timeout=20" <<SQL
    CREATE TEMPORARY TABLE greetings (number int PRIMARY KEY, words text);
    COPY greetings FROM STDIN;
1	hello, $destination
2	bye
\.
    PREPARE greeting (int) AS SELECT words FROM greetings WHERE number = \$1;
    EXECUTE greeting (1);
    SELECT count(*), sum(length(words)) FROM greetings;
    SELECT repeat('x', 1000) FROM generate_series(1, 2000);
SQL
done
