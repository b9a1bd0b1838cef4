#!/usr/bin/env bash
# A plain proxy of two hops, as two security servers stand: nginx → mutual TLS 1.3 → nginx → register. Nothing is signed or
# logged. usage: nginx.sh WORK_DIR FRONT_PORT HOP_PORT REGISTER; runs until it is ended.
set -euo pipefail
work=$1 front=$2 hop=$3 register=$4
mkdir -p "$work"
cd "$work"
if ! [ -s b.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 \
        -subj "/CN=plain proxies" 2>/dev/null
    for name in a b; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr \
            -subj "/CN=$name.test" 2>/dev/null
        openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out $name.pem \
            -extfile <(printf 'subjectAltName=DNS:%s.test\n' $name) 2>/dev/null
    done
fi
common="access_log off; client_max_body_size 0; proxy_http_version 1.1; proxy_set_header Connection '';
    proxy_buffering off; proxy_request_buffering off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;"
cat >nginx.conf <<CONF
worker_processes 2; pid $work/nginx.pid; error_log $work/error.log; daemon off;
events { worker_connections 256; }
http {
    $common
    upstream hop { server 127.0.0.1:$hop; keepalive 8; }
    upstream register { server $register; keepalive 8; }
    server {
        listen 127.0.0.1:$front;
        location / {
            proxy_pass https://hop;
            proxy_ssl_certificate a.pem; proxy_ssl_certificate_key a.key; proxy_ssl_trusted_certificate ca.pem;
            proxy_ssl_verify on; proxy_ssl_name b.test; proxy_ssl_protocols TLSv1.3;
        }
    }
    server {
        listen 127.0.0.1:$hop ssl;
        ssl_certificate b.pem; ssl_certificate_key b.key; ssl_client_certificate ca.pem; ssl_verify_client on;
        ssl_protocols TLSv1.3;
        location / { proxy_pass http://register; }
    }
}
CONF
exec nginx -p "$work" -c "$work/nginx.conf" -e "$work/error.log"
