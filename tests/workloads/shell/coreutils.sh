# The coreutils people use, on files they make themselves.
set -u
export LC_ALL=C
mkdir -p a/b/c; printf 'pear\napple\nfig\n' >a/fruit; cp -r a copy; ls -R; mv copy/fruit copy/renamed; ls copy
ln -s a/fruit link; readlink link; readlink -f link | grep -c 'a/fruit$'; cat link
ln a/fruit hard; stat -c '%h %F %s %a' hard; [ a/fruit -ef hard ] && echo same
sort a/fruit | uniq -c | tr -s ' '; sort -r a/fruit; nl a/fruit; tac a/fruit; rev a/fruit 2>/dev/null || true
cut -c1-3 a/fruit; paste a/fruit a/fruit; join <(sort a/fruit) <(sort a/fruit); comm -12 <(sort a/fruit) <(sort a/fruit)
head -c 5 a/fruit; echo; tail -c 4 a/fruit; wc a/fruit; fold -w 2 a/fruit | head -n 3; expand -t 4 <<<$'\tx'
seq 1 100000 | md5sum; seq 1 100000 | sha256sum; head -c 1000000 /dev/zero | cksum
base64 <<<"round trip" | base64 -d; od -An -tx1 <<<"abc"; printf 'x%.0s' {1..300} | split -b 100 - part.; ls part.*; cat part.* | wc -c
dd if=/dev/zero of=blob bs=4096 count=10 status=none; stat -c %s blob; truncate -s 5 blob; stat -c %s blob
dd if=/dev/zero of=sparse bs=1 count=1 seek=1M status=none; stat -c %s sparse
touch -d '2001-02-03 04:05:06 UTC' dated; stat -c %Y dated; date -u -r dated +%F; date -u -d @86400 +%FT%T
chmod 640 dated; stat -c %A dated; chmod u+s,o-r dated; stat -c %a dated; [ -u dated ] && echo setuid
test -d a && test -f a/fruit && test -L link && test ! -e nothing && echo tests
echo one two three | xargs -n 1 echo; env -i A=1 env; printenv HOME || echo "no HOME"; expr 6 \* 7; factor 360; seq -s, 5
tee t1 t2 <<<"tee" ; cmp t1 t2 && echo equal; shuf -i 1-5 | sort -n | tr -d '\n'; echo; tsort <<<"a b b c"
mktemp -d ./tmpXXXX | wc -c; rmdir ./tmp*; id -u; id -gn; whoami; nproc >/dev/null && echo nproc; uname -s; hostname >/dev/null && echo hostname
timeout 0.05 sleep 5; echo "timeout: $?"; nice -n 5 nice; sync && echo synced; df . >/dev/null && echo df; du -s --apparent-size a | cut -f2
cp --sparse=always sparse sparse2; cmp sparse sparse2 && echo sparse; install -m 755 a/fruit inst; stat -c %a inst
mv a/b/c moved; rm -r a copy; rmdir moved; ls; cat nothing 2>/dev/null; echo "cat: $?"; rm -rf ./* ; ls -A
