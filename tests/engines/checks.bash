# Shared by the engine scripts.

# check NAME EXPECTED_STATUS EXPECTED_OUTPUT COMMAND...: runs the command with a limit; compares status and standard output.
check() {
    local name=$1 status=$2 expected=$3 got code
    shift 3
    got=$(timeout --kill-after=5 60 "$@" 2>"$SCRATCH/stderr")
    code=$?
    if [ "$code" = "$status" ] && [ "$got" = "$expected" ]; then
        echo "ok $name"
    else
        echo "not ok $name: status $code (expected $status), output '${got:0:300}' (expected '$expected')"
        sed "s/^/  $name: /" "$SCRATCH/stderr" | tail -n 5 >&2
    fi
}
