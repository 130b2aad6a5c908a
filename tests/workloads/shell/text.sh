# grep, sed and awk over a file large enough to be read in pieces.
set -u
export LC_ALL=C
seq 1 50000 | sed 's/$/ line/; s/7/seven/g' >data
wc data; grep -c seven data; grep -n '^49999 ' data; grep -E '^(1|22|333) ' data; grep -vc line data; echo "none: $?"
grep -o 'seven' data | sort | uniq -c | tr -s ' '; grep -rl '123 line' . ; grep -q nothing data; echo "grep: $?"; grep -A1 -B1 -m1 '^100 ' data
sed -n '10,12p;$p' data; sed '/seven/!d' data | tail -n 2; sed -E 's/([0-9]+) (line)/\2 \1/' data | head -n 2
sed -i '1,49990d' data; cat data; sed -n '$=' data; sed 'y/eln/ELN/;5q' data; printf 'a\nb\n' | sed 'N;s/\n/-/'
awk '{ sum += $1 } END { print NR, sum }' data; awk -F' ' '$1 % 2 { print $1, length($2) }' data
awk 'BEGIN { while ("echo from a pipe" | getline line) print line; "date -u -d @0 +%Y" | getline y; print y }'
awk 'BEGIN { for (i = 0; i < 5; i++) a[i % 2] += i; print a[0], a[1]; print toupper("x"), substr("hello", 2, 3), index("abc", "c") }'
awk 'BEGIN { print "to a command" | "cat"; close("cat"); print system("exit 3"); printf "%05.2f|%x|%s\n", 3.14159, 255, "s" > "out" }'; cat out
printf 'b 2\na 1\nc 3\n' | awk '{ print $2, $1 | "sort" }'; tr -d '0-9' <data | sort -u; rm -f data out
