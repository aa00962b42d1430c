# Ends a test's server when the test process has ended, however it ended.
#
# $1 is the server's directory. Orders come on standard input, one per line:
#   guard process PID | guard container NAME | release
# The test process holds the other end of the pipe and never closes it while it lives: the end of
# the input means that it is gone, or that it wants the server gone.

# Ctrl-C and a closed terminal end the test process, and must not end its watchdog.
trap '' INT TERM HUP

directory=$1
kind=none
name=

while read -r order new_kind new_name; do
    case $order in
        guard)   kind=$new_kind name=$new_name ;;
        release) kind=none name= ;;
    esac
done

case $kind in
    process)
        # KILL also ends a stopped process. The rounds bound the wait for one that nobody reaps.
        rounds=0
        while kill -KILL "$name" 2>/dev/null && [ "$rounds" -lt 40 ]; do
            rounds=$((rounds + 1))
            sleep 0.05
        done
        ;;
    container)
        docker rm --force --volumes "$name" >/dev/null 2>&1
        ;;
esac

# A second time for what the dying server wrote during the first.
rm -rf -- "$directory" || rm -rf -- "$directory"
