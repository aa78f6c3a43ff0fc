#!/bin/sh
# Makes an authority and a certificate for each of the three NATS servers below
# tls/, for trying things out. Needs openssl. Keep tls/authority away from the
# servers, or use the authority that you have.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p tls/authority tls/ca
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
key tls/authority/ca-key.pem
openssl req -x509 -new -key tls/authority/ca-key.pem -days 3650 -subj '/CN=ringmaster authority' -out tls/ca/ca.pem
for name in nats-1 nats-2 nats-3; do
  mkdir -p "tls/$name"
  cp tls/ca/ca.pem "tls/$name/ca.pem"
  key "tls/$name/server-key.pem"
  printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$name" >"tls/$name/extensions"
  openssl req -new -key "tls/$name/server-key.pem" -subj "/CN=$name" |
    openssl x509 -req -CA tls/ca/ca.pem -CAkey tls/authority/ca-key.pem -CAcreateserial -days 825 \
      -extfile "tls/$name/extensions" -out "tls/$name/server.pem"
  rm "tls/$name/extensions"
done
# The programs in the containers run as a user of their own.
chmod 755 tls tls/ca tls/nats-*
chmod 644 tls/ca/ca.pem
