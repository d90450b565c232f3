#!/bin/sh
# What docker-compose.secure.yml needs, in a folder with one folder for each process, which alone gets it:
#
#   ca/          ca.crt, ca.key       the authority, made here unless its certificate is there: then it is yours, and so
#                                     are all certificates
#   NAME/        ca.crt tls.crt tls.key   of every process
#                store.password       of those who use the store: trainer, replica, router, load
#                signing.key          of those who publish or serve generations: trainer, replica, router
#                tokens, token        router and shadow take calls with these; load and page send this
#   page/        page.token           what the page asks browsers for, as in user/
#   redis/       users.acl            users of the store with digests of their passwords, and what each may do
#   grafana/     admin.password       of the user `admin`
#   user/        ca.crt, token        for you: flicker query --tls-ca ... --token-file ...
#                page.token           for you: https://localhost:8080/?token=...
#
# secrets.sh FOLDER makes what is missing, and anew what ends within RENEW_DAYS; what is there stays. --keep: stays and
# looks again once a day. It needs openssl. FLICKER_NAMES: further names and addresses of this machine, for the
# certificates of router, shadow, page and grafana. As root it gives the files to the group OWNERS (10001, as in our images),
# and user/ to whoever owns FOLDER.
set -eu
umask 027

folder=${1:?which folder?}
days=365 renew_days=${RENEW_DAYS:-30}
processes="trainer replica router shadow load page redis prometheus grafana"
owners=${OWNERS:-10001}

say() { echo "secrets: $*"; }

authority() {
    [ ! -s ca/ca.crt ] || return 0
    mkdir -p ca
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Flicker, made $(date -u +%F)" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout ca/ca.key -out ca/ca.crt 2> /dev/null
    say "made an authority of our own: $folder/ca"
}

names() {  # of a process's certificate: its service's, and this machine's for its own probe
    found="DNS:$1,DNS:localhost,IP:127.0.0.1"
    case $1 in router | shadow | page | grafana)
        for name in ${FLICKER_NAMES:-}; do
            case $name in *[!0-9.]*) found="$found,DNS:$name" ;; *) found="$found,IP:$name" ;; esac
        done ;;
    esac
    echo "$found"
}

certificate() {
    if [ -s "$1/tls.crt" ]; then
        openssl x509 -in "$1/tls.crt" -noout -checkend $((renew_days * 86400)) > /dev/null && return 0
        [ -s ca/ca.key ] || { say "$folder/$1/tls.crt ends soon: it is yours to renew"; return 0; }
    elif [ ! -s ca/ca.key ]; then
        say "$folder/$1/tls.crt is missing, and $folder/ca/ca.crt has no key beside it to sign one: add it" >&2
        exit 2
    fi
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$1/new.key" -out "$1/new.csr" 2> /dev/null
    cat > "$1/new.ext" << EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$(names "$1")
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EXTENSIONS
    openssl x509 -req -in "$1/new.csr" -CA ca/ca.crt -CAkey ca/ca.key -days $days -extfile "$1/new.ext" \
        -set_serial "0x$(openssl rand -hex 16)" -out "$1/new.crt" 2> /dev/null
    chmod 640 "$1/new.key"
    mv "$1/new.key" "$1/tls.key"
    mv "$1/new.crt" "$1/tls.crt"
    rm "$1/new.csr" "$1/new.ext"
    say "made a certificate for $1: $(names "$1")"
}

secret() { [ -s "$1" ] || openssl rand -hex 32 > "$1"; }

copy() { cmp -s "$1" "$2" || cp "$1" "$2"; }

hashed() { printf '#%s' "$(head -n 1 "$1" | tr -d '\r\n' | openssl dgst -sha256 -r | cut -d' ' -f1)"; }

users() {  # who may do what in the store; `flicker:RUN:...` are all keys, see simulator/store/redis.py
    scripts='+@read +@connection +@scripting +multi +exec +time -@dangerous'
    cat << ACL
user default off
user probe on $(hashed redis/probe.password) +ping
user trainer on $(hashed trainer/store.password) ~flicker:* $scripts +@write
user replica on $(hashed replica/store.password) %R~flicker:* ~flicker:*:leases ~flicker:*:members $scripts +hset +hdel
user router on $(hashed router/store.password) %R~flicker:* ~flicker:*:log ~flicker:*:log:* ~flicker:*:members $scripts +@write
user load on $(hashed load/store.password) %R~flicker:*:log:marks +@connection +hget +ping
ACL
}

make() {
    cd "$folder"
    authority
    for process in $processes user; do
        mkdir -p "$process"
        chmod 750 "$process"  # where the engine made it, to mount it
        copy ca/ca.crt "$process/ca.crt"
    done
    for process in $processes; do certificate "$process"; done
    for process in trainer replica router load; do secret "$process/store.password"; done
    secret trainer/signing.key
    for process in replica router; do copy trainer/signing.key "$process/signing.key"; done
    for process in user load page; do secret "$process/token"; done
    secret user/page.token
    copy user/page.token page/page.token
    for process in router shadow; do
        [ -s "$process/tokens" ] || cat user/token load/token page/token > "$process/tokens"
    done
    secret redis/probe.password
    users > redis/new.acl
    copy redis/new.acl redis/users.acl
    rm redis/new.acl
    secret grafana/admin.password
    chmod 700 ca
    if [ "$(id -u)" = 0 ]; then
        for process in $processes; do chown -R "root:$owners" "$process"; done
        chown -R "$(stat -c %u:%g .)" user
    fi
    touch .made
}

make
[ "${2:-}" = --keep ] || exit 0
say "ready in $folder; looked at once a day"
while sleep 86400 & wait $!; do make; done
