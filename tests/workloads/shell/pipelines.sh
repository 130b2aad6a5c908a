# Pipelines, redirections, here-documents, process substitution, subshells, traps and exit statuses of bash itself.
set -u
seq 1 20000 | tail -n 3 | tr '\n' ' '; echo
seq 1 1000 | sort -rn | head -n 2 | paste -sd+
false | true | (exit 7); echo "pipestatus: ${PIPESTATUS[*]}"
set -o pipefail; true | false | true; echo "pipefail: $?"; set +o pipefail
cat <<EOT | wc -c
one
two $((3 + 4))
EOT
cat <<<"here string"
diff <(printf 'a\nb\n') <(printf 'a\nc\n'); echo "diff: $?"
{ echo out; echo err >&2; } 2>&1 | sort
echo first >f; echo second >>f; cat <f; cat f f >g; wc -l <g
exec 7>h; echo seven >&7; exec 7>&-; cat h
(cd /; pwd); basename "$(pwd)"
x=$(for i in 1 2 3; do (echo "sub $i"); done); echo "$x"
trap 'echo trapped' USR1; kill -USR1 $$; echo "after trap"
(trap 'echo bye' EXIT; exit 3); echo "subshell: $?"
bash -c 'kill -KILL $$'; echo "killed: $?"
bash -c 'exit 300'; echo "exit 300: $?"
/does/not/exist 2>/dev/null; echo "not found: $?"
./f 2>/dev/null; echo "not executable: $?"
yes | head -n 2; echo "yes: ${PIPESTATUS[0]}"
sleep 0.01 & wait $!; echo "background: $?"
for i in 1 2 3 4; do (exit $i) & pids[$i]=$!; done
for i in 1 2 3 4; do wait "${pids[$i]}"; echo "child $i: $?"; done
mkfifo p; (echo through >p) & cat p; wait
# The job says that it runs before it is killed, and is named as the current one: %1 may still be a job that has ended.
mkfifo q; set -m; sh -c 'echo up >q; exec sleep 100' & read -r up <q; kill %%; wait $! 2>/dev/null; echo "job $up: $?"; set +m
ulimit -n 64; ulimit -n; (ulimit -f 1; head -c 100000 /dev/zero >big; echo "file limit: $?") 2>/dev/null
umask 027; touch masked; stat -c %a masked
read -r line < <(printf 'a b\\c\n'); echo "$line"
printf '%s\n' *; rm -f ./*
