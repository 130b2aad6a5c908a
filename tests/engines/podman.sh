# podman: run, stdin, exit codes, environment, exec, logs and rm, with images made of our own root file systems.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/checks.bash"
podman=(podman --root "$SCRATCH/root" --runroot "$SCRATCH/run" --storage-driver vfs --cgroup-manager=cgroupfs
    --events-backend none --runtime "$QUICKSAND" --tmpdir "$SCRATCH/tmp")
limits=(--network=none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
cleanup() {
    timeout 60 "${podman[@]}" rm --all --force --time 0 >/dev/null 2>&1
    timeout 60 "${podman[@]}" rmi --all --force >/dev/null 2>&1
    # The storage layer may keep its root mounted.
    umount -R "$SCRATCH/root/vfs" 2>/dev/null
    umount -R "$SCRATCH/root" 2>/dev/null
    true
}
trap cleanup EXIT

for name in busybox python; do
    root=BUSYBOX_ROOT
    [ $name = python ] && root=PYTHON_ROOT
    if ! tar -C "${!root}" -c . | timeout 120 "${podman[@]}" import -q - "localhost/$name" >/dev/null; then
        echo "not ok import-$name: podman import failed"
        exit 1
    fi
done
run=("${podman[@]}" run --rm "${limits[@]}")

check echo 0 hello "${run[@]}" localhost/busybox echo hello
check exit-code 7 "" "${run[@]}" localhost/busybox sh -c 'exit 7'
check init-is-immune 0 survived "${run[@]}" localhost/busybox sh -c 'kill -TERM $$; echo survived'
check signal 137 "" "${run[@]}" localhost/busybox sh -c 'sh -c "kill -KILL \$\$"; exit $?'
check environment 0 "value" "${run[@]}" --env KEY=value localhost/busybox sh -c 'echo $KEY'
check workdir 0 "/var" "${run[@]}" --workdir /var localhost/busybox pwd
check user 0 "65534" "${run[@]}" --user 65534 localhost/busybox id -u
check hostname 0 "sandbox" "${run[@]}" --hostname sandbox localhost/busybox hostname
check stderr 0 "" "${run[@]}" localhost/busybox sh -c 'echo err >&2'
check not-found 127 "" "${run[@]}" localhost/busybox /no/such/program
mkdir -p "$SCRATCH/volume" && echo content >"$SCRATCH/volume/file"
check volume 0 "content" "${run[@]}" --volume "$SCRATCH/volume:/volume" localhost/busybox cat /volume/file
check read-only 1 "" "${run[@]}" --read-only localhost/busybox touch /file
stdin() { printf 'through\nstdin\n' | "${run[@]}" -i localhost/busybox "$@"; }
got=$(stdin sort -r 2>&1)
[ "$got" = $'through\nstdin' ] && echo "ok stdin" || echo "not ok stdin: got '$got'"
check python 0 '{"answer": 42}' "${run[@]}" localhost/python python3 -c 'import json; print(json.dumps({"answer": 6 * 7}))'
check python-subprocess 0 child "${run[@]}" localhost/python python3 -c 'import subprocess; subprocess.run(["echo", "child"], check=True)'

# A container in the background, and commands that join it.
if id=$(timeout 60 "${podman[@]}" run -d "${limits[@]}" --name background localhost/busybox sh -c 'echo started; exec sleep 1000' 2>"$SCRATCH/stderr"); then
    check exec 0 joined "${podman[@]}" exec background echo joined
    check exec-exit-code 5 "" "${podman[@]}" exec background sh -c 'exit 5'
    check exec-sees-init 0 "sleep" "${podman[@]}" exec background cat /proc/1/comm
    check running 0 true "${podman[@]}" inspect --format '{{.State.Running}}' background
    check logs 0 started "${podman[@]}" logs background
    check kill 0 "background" "${podman[@]}" kill background
    check killed-code 0 137 "${podman[@]}" wait background
    check remove 0 "$id" "${podman[@]}" rm "$id"
else
    echo "not ok background: $(tail -n 1 "$SCRATCH/stderr")"
fi
