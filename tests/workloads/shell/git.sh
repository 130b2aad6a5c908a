# git: init, commits, branches, a merge with a conflict, a clone, a bare repository, gc.
set -u
export LC_ALL=C HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' PAGER=cat
git init -q -b main repo; cd repo || exit 1
for i in $(seq 1 30); do echo "content $i" >file$i; done; git add .; git commit -qm "First"; git log --format='%H %s'; git status --short
echo changed >>file1; git diff --stat; git commit -qam "Second"; git rev-parse HEAD; git show --stat --format=%s | cat
git checkout -qb side HEAD~1; echo side >>file1; git commit -qam "Side"; git checkout -q main; git merge side >/dev/null 2>&1; echo "merge: $?"; git status --short | head -n 1
printf 'content 1\nresolved\n' >file1; git add file1; git commit -qm "Merge"; git log --oneline --graph --format=%s; git tag v1; git describe --tags
git clone -q . ../clone; git -C ../clone log -1 --format=%H; git -C ../clone fsck --no-progress; git clone -q --bare . ../bare.git; git -C ../clone push -q ../bare.git HEAD:refs/heads/x; git -C ../bare.git branch --list | tr -d ' '
git gc -q; git count-objects -v | grep -E '^(count|packs)'; git grep -c content | wc -l; git blame -s file1 | cut -d' ' -f2-; git stash list; git archive HEAD | tar -tf - | wc -l; cd ..
rm -rf repo clone bare.git .gitconfig; ls -A
