#!/usr/bin/env bash
# postgres_server.sh PORT FOLDER   a new cluster of PostgreSQL in a folder of its own, without passwords, run as nobody
set -euo pipefail
port=$1 data=$2/postgres-$1
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
mkdir -p "$data"
chown nobody "$data"
chmod 711 "$2"
as_nobody=(setpriv --reuid=nobody --regid=nogroup --clear-groups --pdeathsig=TERM)
"${as_nobody[@]}" "$programs/initdb" --no-sync --auth=trust --username=postgres --pgdata="$data" >/dev/null
printf 'host all all %s trust\n' 0.0.0.0/0 ::/0 >> "$data/pg_hba.conf"
exec "${as_nobody[@]}" "$programs/postgres" -D "$data" -p "$port" -c "listen_addresses=*" -c "unix_socket_directories=$data"
