// splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2): data, offsets, short counts, errnos.
#include "../check.h"
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

static char buf[1 << 17];

int main(void) {
    tmp_enter();
    put_file("in", "0123456789abcdefghij", 0644);
    int in = MUST(open("in", O_RDWR)), out = MUST(open("out", O_RDWR | O_CREAT, 0644)), p[2], q[2];
    MUST(pipe2(p, O_NONBLOCK));
    MUST(pipe2(q, O_NONBLOCK));
    RET("splice.file_to_pipe", splice(in, NULL, p[1], NULL, 5, 0));
    RET("splice.moved_position", lseek(in, 0, SEEK_CUR));
    off_t off = 10;
    RET("splice.with_offset", splice(in, &off, p[1], NULL, 3, 0));
    val("splice.offset", "%ld %ld", (long)off, (long)lseek(in, 0, SEEK_CUR));
    RET("splice.read", read(p[0], buf, 100));
    val("splice.content", "%.8s", buf);
    write(p[1], "HELLO", 5);
    RET("splice.pipe_to_file", splice(p[0], NULL, out, NULL, 100, 0));
    RET("splice.out_position", lseek(out, 0, SEEK_CUR));
    write(p[1], "world", 5);
    RET("splice.pipe_to_pipe", splice(p[0], NULL, q[1], NULL, 3, 0));
    RET("splice.pipe_left", read(p[0], buf, 100));
    RET("splice.pipe_got", read(q[0], buf, 100));
    RET("splice.empty_nonblock", splice(p[0], NULL, out, NULL, 10, SPLICE_F_NONBLOCK));
    RET("splice.at_end", splice(in, ({ off = 100; &off; }), p[1], NULL, 10, 0));
    RET("splice.zero", splice(in, NULL, p[1], NULL, 0, 0));
    RET("splice.no_pipe", splice(in, NULL, out, NULL, 5, 0));
    RET("splice.pipe_offset", splice(p[0], &off, out, NULL, 5, 0));
    RET("splice.same_pipe", splice(p[0], NULL, p[1], NULL, 5, 0));
    RET("splice.bad_flags", splice(in, NULL, p[1], NULL, 5, 0x100));
    RET("splice.bad_fd", splice(999, NULL, p[1], NULL, 5, 0));
    RET("splice.wrong_direction", splice(p[0], NULL, p[0], NULL, 5, 0));
    int ap = MUST(open("out", O_WRONLY | O_APPEND));
    write(p[1], "zz", 2);
    RET("splice.to_append", splice(p[0], NULL, ap, NULL, 2, 0));
    read(p[0], buf, 10);
    int sv[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    write(p[1], "socket", 6);
    RET("splice.to_socket", splice(p[0], NULL, sv[0], NULL, 6, 0));
    RET("splice.from_socket", splice(sv[1], NULL, p[1], NULL, 100, 0));
    RET("splice.socket_content", read(p[0], buf, 100));
    close(sv[0]);
    RET("splice.socket_end", splice(sv[1], NULL, p[1], NULL, 100, 0));
    int null = MUST(open("/dev/null", O_RDWR)), zero = MUST(open("/dev/zero", O_RDWR));
    write(p[1], "to null", 7);
    RET("splice.to_dev_null", splice(p[0], NULL, null, NULL, 100, 0));
    (void)zero;

    write(p[1], "teetee", 6);
    RET("tee", tee(p[0], q[1], 4, 0));
    RET("tee.source_keeps", read(p[0], buf, 100));
    RET("tee.copy", read(q[0], buf, 100));
    val("tee.content", "%.4s", buf);
    RET("tee.empty", tee(p[0], q[1], 10, SPLICE_F_NONBLOCK));
    RET("tee.same", tee(p[0], p[1], 10, 0));
    RET("tee.file", tee(in, p[1], 10, 0));
    RET("tee.zero", tee(p[0], q[1], 0, 0));
    struct iovec iov[2] = {{"vm", 2}, {"splice", 6}};
    RET("vmsplice", vmsplice(p[1], iov, 2, 0));
    RET("vmsplice.read", read(p[0], buf, 100));
    val("vmsplice.content", "%.8s", buf);
    write(p[1], "reverse", 7);
    struct iovec riov = {buf + 200, 10};
    RET("vmsplice.reverse", vmsplice(p[0], &riov, 1, 0));
    val("vmsplice.reverse_content", "%.7s", buf + 200);
    RET("vmsplice.not_pipe", vmsplice(in, iov, 2, 0));
    RET("vmsplice.bad_flags", vmsplice(p[1], iov, 2, 0x100));

    lseek(in, 0, SEEK_SET);
    lseek(out, 0, SEEK_SET);
    ftruncate(out, 0);
    RET("sendfile", sendfile(out, in, NULL, 6));
    RET("sendfile.in_position", lseek(in, 0, SEEK_CUR));
    off = 15;
    RET("sendfile.offset", sendfile(out, in, &off, 100));
    val("sendfile.offset_after", "%ld %ld %ld", (long)off, (long)lseek(in, 0, SEEK_CUR), (long)lseek(out, 0, SEEK_CUR));
    pread(out, buf, 11, 0);
    val("sendfile.content", "%.11s", buf);
    RET("sendfile.to_pipe", sendfile(p[1], in, ({ off = 0; &off; }), 4));
    RET("sendfile.pipe_content", read(p[0], buf, 100));
    RET("sendfile.from_pipe", sendfile(out, p[0], NULL, 4));
    RET("sendfile.negative_offset", sendfile(out, in, ({ off = -1; &off; }), 4));
    RET("sendfile.bad_in", sendfile(out, 999, NULL, 4));
    RET("sendfile.bad_out", sendfile(999, in, NULL, 4));
    RET("sendfile.out_readonly", sendfile(MUST(open("in", O_RDONLY)), in, NULL, 4));
    RET("sendfile.in_writeonly", sendfile(out, ap, NULL, 4));
    RET("sendfile.to_append", sendfile(ap, in, ({ off = 0; &off; }), 4));
    RET("sendfile.zero", sendfile(out, in, NULL, 0));
    RET("sendfile.at_end", sendfile(out, in, ({ off = 1000; &off; }), 4));
    RET("sendfile.bad_offset_pointer", syscall(SYS_sendfile, out, in, 8, 4));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
    RET("sendfile.to_socket", sendfile(sv[0], in, ({ off = 0; &off; }), 20));
    RET("sendfile.socket_content", read(sv[1], buf, 100));
    RET("sendfile.from_socket", sendfile(out, sv[1], NULL, 4));
    // More than a pipe holds, to a file.
    int big = MUST(open("big", O_RDWR | O_CREAT, 0600)), big2 = MUST(open("big2", O_RDWR | O_CREAT, 0600));
    for (size_t i = 0; i < sizeof buf; i++) buf[i] = i % 251;
    write(big, buf, sizeof buf);
    RET("sendfile.big", sendfile(big2, big, ({ off = 0; &off; }), 1 << 20));
    static char back[1 << 17];
    pread(big2, back, sizeof back, 0);
    YES("sendfile.big_same", !memcmp(buf, back, sizeof buf));

    lseek(in, 0, SEEK_SET);
    ftruncate(out, 0);
    lseek(out, 0, SEEK_SET);
    loff_t oi = 2, oo = 1;
    RET("cfr", copy_file_range(in, NULL, out, NULL, 5, 0));
    val("cfr.positions", "%ld %ld", (long)lseek(in, 0, SEEK_CUR), (long)lseek(out, 0, SEEK_CUR));
    RET("cfr.offsets", copy_file_range(in, &oi, out, &oo, 3, 0));
    val("cfr.offsets_after", "%ld %ld %ld", (long)oi, (long)oo, (long)lseek(in, 0, SEEK_CUR));
    memset(buf, 0, 32);
    pread(out, buf, 20, 0);
    val("cfr.content", "%s", buf);
    RET("cfr.beyond_end", copy_file_range(in, ({ oi = 100; &oi; }), out, NULL, 3, 0));
    RET("cfr.to_end", copy_file_range(in, ({ oi = 15; &oi; }), out, NULL, 100, 0));
    RET("cfr.bad_flags", copy_file_range(in, NULL, out, NULL, 3, 1));
    RET("cfr.same_file_overlap", copy_file_range(in, ({ oi = 0; &oi; }), in, ({ oo = 2; &oo; }), 5, 0));
    RET("cfr.same_file", copy_file_range(in, ({ oi = 0; &oi; }), in, ({ oo = 30; &oo; }), 5, 0));
    RET("cfr.pipe", copy_file_range(in, ({ oi = 0; &oi; }), p[1], NULL, 3, 0));
    RET("cfr.directory", copy_file_range(MUST(open(".", O_RDONLY)), NULL, out, NULL, 3, 0));
    RET("cfr.append", copy_file_range(in, ({ oi = 0; &oi; }), ap, NULL, 3, 0));
    RET("cfr.out_readonly", copy_file_range(in, ({ oi = 0; &oi; }), MUST(open("in", O_RDONLY)), NULL, 3, 0));
    RET("cfr.zero", copy_file_range(in, NULL, out, NULL, 0, 0));
    RET("cfr.negative", copy_file_range(in, ({ oi = -1; &oi; }), out, NULL, 3, 0));
    return 0;
}
