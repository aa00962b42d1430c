# What the scripts share. Sourced by them, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${POLYBUS_CACHE:-$root/.cache}
kafka_version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$root/scripts/kafka/pom.xml")
kafka_jars=$cache/kafka-$kafka_version/libs
asyncapi=$cache/asyncapi
schema_registry_version=$(sed -n 's|.*/pkg/sr v||p' "$root/scripts/schema-registry/go.mod")
schema_registry=$cache/schema-registry-$schema_registry_version/schema-registry
# Where Go puts itself when it is no package.
PATH=$PATH:/usr/local/go/bin

# Messages go to standard error: what scripts/servers writes to standard output can be evaluated.
say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# The java that test-support takes too.
java_program() {
    if [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]]; then
        printf '%s\n' "$JAVA_HOME/bin/java"
    else
        command -v java
    fi
}
