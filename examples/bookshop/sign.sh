#!/bin/sh
# Signs every app of the shop with the least that it needs, and writes whom to trust to build/trust.txt. To be run in this
# folder when the apps are built; then: dhow up --require-signed --trust build/trust.txt
set -eu
dhow=${DHOW:-dhow}

sign() {
    module=$1
    shift
    for capability; do
        shift
        set -- "$@" --cap "$capability"
    done
    "$dhow" sign "build/$module.wasm" "$@" --tag bookshop
}

sign front dhow:serve dhow:state=shop dhow:publish=pubsub/orders \
    dhow:invoke=catalogue dhow:invoke=recommend dhow:invoke=report
sign catalogue dhow:files=/catalogue
sign recommend dhow:state=shop
sign report dhow:state=shop dhow:bindings=nightly
sign mail dhow:state=shop dhow:subscribe=pubsub/orders
sign warehouse dhow:state=shop dhow:subscribe=pubsub/orders dhow:lock=lockstore

"$dhow" keys show account > build/trust.txt
