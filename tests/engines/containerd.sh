# containerd: `ctr run` through the stock runc shim, with a daemon of our own.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/checks.bash"
address="$SCRATCH/containerd.sock"
ctr=(ctr --address "$address" --namespace quicksand)
cat >"$SCRATCH/config.toml" <<EOT
version = 2
root = "$SCRATCH/root"
state = "$SCRATCH/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$address"
[ttrpc]
  address = "$SCRATCH/ttrpc.sock"
EOT
containerd --config "$SCRATCH/config.toml" >"$SCRATCH/containerd.log" 2>&1 &
daemon=$!
cleanup() {
    timeout 20 "${ctr[@]}" tasks kill --signal KILL --all background >/dev/null 2>&1
    timeout 20 "${ctr[@]}" tasks delete --force background >/dev/null 2>&1
    timeout 20 "${ctr[@]}" containers delete background >/dev/null 2>&1
    kill "$daemon" 2>/dev/null
    wait "$daemon" 2>/dev/null
    for mounted in $(awk -v top="$SCRATCH/" 'index($2, top) == 1 { print $2 }' /proc/mounts | sort -r); do
        umount "$mounted" 2>/dev/null
    done
    timeout 60 podman --root "$SCRATCH/podman" --runroot "$SCRATCH/podman-run" --storage-driver vfs rmi --all --force >/dev/null 2>&1
    umount -R "$SCRATCH/podman" 2>/dev/null
    true
}
trap cleanup EXIT

# `ctr version` waits for the daemon itself.
for _ in $(seq 100); do
    timeout 5 "${ctr[@]}" version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { echo "not ok start: $(tail -n 1 "$SCRATCH/containerd.log")"; exit 1; }
    read -r -t 0.1 <> <(:) || true
done

podman=(podman --root "$SCRATCH/podman" --runroot "$SCRATCH/podman-run" --storage-driver vfs --events-backend none)
for name in busybox python; do
    root=BUSYBOX_ROOT
    [ $name = python ] && root=PYTHON_ROOT
    if ! { tar -C "${!root}" -c . | "${podman[@]}" import -q - "localhost/$name:latest" >/dev/null &&
        "${podman[@]}" save -q --format oci-archive -o "$SCRATCH/$name.tar" "localhost/$name:latest" >/dev/null &&
        "${ctr[@]}" images import --snapshotter native "$SCRATCH/$name.tar" >/dev/null; } 2>"$SCRATCH/stderr"; then
        echo "not ok import-$name: $(tail -n 1 "$SCRATCH/stderr")"
        exit 1
    fi
    rm "$SCRATCH/$name.tar"
done
run=("${ctr[@]}" run --rm --snapshotter native --runc-binary "$QUICKSAND")

check echo 0 hello "${run[@]}" localhost/busybox:latest echo echo hello
check exit-code 7 "" "${run[@]}" localhost/busybox:latest exit sh -c 'exit 7'
check environment 0 value "${run[@]}" --env KEY=value localhost/busybox:latest environment sh -c 'echo $KEY'
check python 0 42 "${run[@]}" localhost/python:latest python python3 -c 'import json; print(json.loads("[42]")[0])'
# To a file: a shim that outlives its container would hold a pipe open.
printf 'a\nb\n' | timeout --kill-after=5 60 "${run[@]}" localhost/busybox:latest stdin sh -c 'read a; read b; echo $b $a' >"$SCRATCH/out" 2>&1
[ "$(cat "$SCRATCH/out")" = "b a" ] && echo "ok stdin" || echo "not ok stdin: got '$(head -c 300 "$SCRATCH/out")'"

if timeout 60 "${ctr[@]}" run -d --snapshotter native --runc-binary "$QUICKSAND" localhost/busybox:latest background sleep 1000 2>"$SCRATCH/stderr"; then
    check exec 0 joined "${ctr[@]}" tasks exec --exec-id one background echo joined
    check exec-exit-code 5 "" "${ctr[@]}" tasks exec --exec-id two background sh -c 'exit 5'
    check listed 0 RUNNING sh -c "$(printf '%q ' "${ctr[@]}") tasks list | awk '\$1 == \"background\" { print \$3 }'"
    check kill 0 "" "${ctr[@]}" tasks kill --signal KILL background
else
    echo "not ok background: $(tail -n 1 "$SCRATCH/stderr")"
fi
