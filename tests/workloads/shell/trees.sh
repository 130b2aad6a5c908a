# tar, find and xargs over a tree with every kind of file.
set -u
export LC_ALL=C
mkdir -p tree/{a,b/c}; for i in $(seq 1 50); do echo "file $i" >tree/a/$i; done
ln -s ../a/1 tree/b/link; ln tree/a/2 tree/b/hard; mkfifo tree/b/fifo; touch -d @1000000000 tree/b/old; chmod 700 tree/b/c
find tree -type f | wc -l; find tree -type l -printf '%p -> %l\n'; find tree -type p; find tree -newermt '2020-01-01' -type f | wc -l
find tree -name '1*' -type f | sort | head -n 3; find tree -links 2 -type f | sort; find tree -size 0 -type f; find tree -perm 700
find tree -depth -type d | sort; find tree/a -type f -exec cat {} + | wc -c; find tree/a -name 5 -exec echo found {} \;; find tree -empty -type d
find tree/a -type f -print0 | sort -z | xargs -0 -n 20 sh -c 'echo $#' sh; seq 1 8 | xargs -P 4 -I{} sh -c 'exit 0'; echo "xargs: $?"
seq 3 | xargs -I{} sh -c 'exit {}' 2>/dev/null; echo "xargs: $?"
tar -cf t.tar tree; tar -tf t.tar | sort | head -n 5; tar -tf t.tar | wc -l; mkdir out; tar -C out -xf t.tar; diff -r --no-dereference tree/a out/tree/a && echo same
stat -c '%a %F %Y' out/tree/b/old out/tree/b/c out/tree/b/fifo | sed 's/ [0-9]*$//'; stat -c %Y out/tree/b/old; stat -c %h out/tree/b/hard; readlink out/tree/b/link
tar -czf t.tgz tree && gzip -t t.tgz && echo gzip; tar -xzOf t.tgz tree/a/7; gzip -c t.tar | gunzip | cmp - t.tar && echo round; tar -cf - tree | (cd out && tar -xf - && echo piped)
rm -rf tree out t.tar t.tgz; ls -A
