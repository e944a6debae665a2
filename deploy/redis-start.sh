#!/bin/sh
# Starts a Redis with the users of users.acl and the passwords of the secret files:
#
#   redis-start.sh CONFIG URL_FILE SITE_PASSWORD_FILE [redis-server options…]
#
# URL_FILE holds the URL that stoker itself connects with, redis://stoker:PASSWORD@host:6379/0;
# the user "site" is for the app servers. Only the passwords' SHA-256 sums reach Redis. STOKER_APP
# (default: site) replaces the app's name in the users' key patterns. The list of users is
# written to the working directory, which is Redis's data directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
config=$1 url_file=$2 site_file=$3
shift 3

sum() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

password=$(sed -n 's|^[a-z+-]*://stoker:\([^@]*\)@.*$|\1|p' "$url_file")
site_password=$(cat "$site_file")
if [ -z "$password" ] || [ -z "$site_password" ]; then
	echo "redis-start.sh: no password for stoker in $url_file, or $site_file is empty" >&2
	exit 2
fi

app=${STOKER_APP:-site}
sed -e "s/{site/{$app/g" -e "s/~site:/~$app:/g" \
	-e "s/^user stoker on #0*/user stoker on #$(sum "$password")/" \
	-e "s/^user site on #0*/user site on #$(sum "$site_password")/" \
	"$here/users.acl" >users.acl

set -- redis-server "$config" --aclfile "$PWD/users.acl" "$@"
# The official image's entrypoint gives the data directory to the user redis and becomes it.
if command -v docker-entrypoint.sh >/dev/null; then
	set -- docker-entrypoint.sh "$@"
fi
exec "$@"
