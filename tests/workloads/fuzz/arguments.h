// Arguments by their letter (see `shapes.h`): mostly what a program might pass, now and then with a field that is wrong, or not a pointer
// at all. Structures lie in the caller's own slice of the area.

static uint64_t pointer(void) {
    switch (below(12)) {
    case 0: return 0;
    case 1: return (uint64_t)readonly + below(PAGE);
    case 2: return (uint64_t)area + AREA - below(16);
    case 3: return 0xffff800000000000 + below(1 << 20);
    case 4: return 0x8000000000000000 + rnd() % (1UL << 40);
    case 5: return 0x7ffffffff000 - below(8192);
    case 6: return below(1 << 16);
    case 7: return (uint64_t)(uintptr_t)paths[below(PATHS)];
    default: return (uint64_t)area + 64 * below(AREA / 64);
    }
}

static uint64_t number(void) {
    switch (below(9)) {
    case 0: return below(4);
    case 1: return below(64);
    case 2: return -1 - below(4);
    case 3: return 1UL << below(64);
    case 4: return rnd();
    case 5: return below(1 << 16);
    case 6: return 0x7fffffff + below(3);
    case 7: return INT64_MAX - below(3);
    default: return 0;
    }
}

static uint64_t argument(void) {
    return below(3) ? pointer() : number();
}

// A place for a structure of this many bytes, zeroed; rarely one that ends in the unmapped.
static char *place(size_t bytes) {
    if (below(40) == 0)
        return area + AREA - bytes / 2;
    char *at = area + 64 * below((AREA - bytes) / 64);
    memset(at, 0, bytes);
    return at;
}

static int descriptor(void) {
    switch (below(16)) {
    case 0: return (int)number();
    case 1: return 3 + (int)below(200);
    default: return 3 + (int)below(40);
    }
}

static uint64_t length(void) {
    switch (below(8)) {
    case 0: return number();
    case 1: return 0;
    case 2: return below(1 << 20);
    case 3: return 8;
    default: return below(4096);
    }
}

static const char *path(void) {
    static const char *const parts[] = {"a", "b", "f", "d", "l", "..", ".", "/", "loop", "", "fifo", "s", "proc", "dev"};
    if (below(3))
        return paths[below(PATHS)];
    char *at = place(512);
    *at = 0;
    if (below(60) == 0)
        return memset(at, 'x', 511);
    for (uint64_t i = below(5) + 1; i; i--) {
        strcat(at, parts[below(sizeof parts / sizeof *parts)]);
        if (i > 1)
            strcat(at, "/");
    }
    return at;
}

static uint64_t vector(void) {
    struct iovec *at = (struct iovec *)place(16 * sizeof *at);
    for (int i = 0; i < 16; i++) {
        at[i].iov_base = (void *)(below(8) ? (uint64_t)area + below(AREA) : pointer());
        at[i].iov_len = below(8) ? below(5000) : number();
    }
    return (uint64_t)at;
}

static socklen_t address_length;

static uint64_t address(void) {
    char *at = place(128);
    address_length = 16;
    switch (below(6)) {
    case 0:
    case 1: {
        struct sockaddr_un *un = (void *)at;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s%llu", below(2) ? "s" : "", (unsigned long long)below(4));
        address_length = (socklen_t)(2 + below(109));
        break;
    }
    case 2: {
        struct sockaddr_in *in = (void *)at;
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(below(4) ? INADDR_LOOPBACK : (uint32_t)rnd());
        in->sin_port = htons((uint16_t)(below(2) ? 2000 + below(4) : rnd()));
        break;
    }
    case 3: {
        struct sockaddr_in6 *in = (void *)at;
        in->sin6_family = AF_INET6;
        in->sin6_addr = in6addr_loopback;
        in->sin6_port = htons((uint16_t)(2000 + below(4)));
        address_length = 28;
        break;
    }
    case 4: *(uint16_t *)at = AF_NETLINK; break;
    default: *(uint16_t *)at = (uint16_t)below(50); address_length = (socklen_t)below(130);
    }
    return (uint64_t)at;
}

static void fill_message(struct msghdr *at) {
    if (below(3) == 0) {
        at->msg_name = (void *)address();
        at->msg_namelen = address_length;
    }
    at->msg_iov = (void *)vector();
    at->msg_iovlen = below(12) ? below(16) : number();
    if (below(2)) {
        struct cmsghdr *control = (void *)place(512);
        at->msg_control = control;
        at->msg_controllen = below(6) ? 24 + 4 * below(60) : below(6) * 16;
        int rights = below(4) != 0;
        control->cmsg_level = below(8) ? SOL_SOCKET : (int)below(300);
        control->cmsg_type = rights ? SCM_RIGHTS : (int)below(4);
        control->cmsg_len = below(8) ? at->msg_controllen : number();
        int *data = (void *)CMSG_DATA(control);
        for (int i = 0; i < 60; i++)
            data[i] = descriptor();
        if (!rights && below(2))
            data[0] = getpid(), data[1] = 0, data[2] = 0;
    }
    if (below(20) == 0)
        ((uint64_t *)at)[below(7)] = argument();
}

static uint64_t message(void) {
    struct msghdr *at = (void *)place(sizeof *at);
    fill_message(at);
    return (uint64_t)at;
}

static uint64_t messages(void) {
    struct mmsghdr *at = (void *)place(8 * sizeof *at);
    for (int i = 0; i < 3; i++)
        fill_message(&at[i].msg_hdr);
    return (uint64_t)at;
}

static uint64_t moment(void) {
    struct timespec *at = (void *)place(2 * sizeof *at);
    for (int i = 0; i < 2; i++) {
        at[i].tv_sec = below(6) ? 0 : (time_t)number();
        at[i].tv_nsec = below(6) ? (long)below(3000000) : below(2) ? UTIME_NOW + (long)below(2) : (long)number();
    }
    return (uint64_t)at;
}

static uint64_t words(size_t count, uint64_t (*word)(void)) {
    uint64_t *at = (void *)place(count * 8);
    for (size_t i = 0; i < count; i++)
        at[i] = word();
    return (uint64_t)at;
}

static uint64_t small(void) {
    return below(1 << 12);
}

static uint64_t action(void) {
    uint64_t *at = (void *)place(32);
    at[0] = below(2) ? (uint64_t)nothing : below(3);
    at[1] = SA_RESTORER_BIT | (below(2) ? SA_RESTART | SA_SIGINFO : number());
    at[2] = (uint64_t)restorer();
    at[3] = below(2) ? 0 : rnd();
    return (uint64_t)at;
}

static uint64_t strings(void) {
    uint64_t *at = (void *)place(64 * 8);
    for (uint64_t i = 0, count = below(8) ? below(5) : 63; i < count; i++)
        at[i] = below(16) ? (uint64_t)path() : pointer();
    return (uint64_t)at;
}

static uint64_t clone_arguments(void) {
    struct clone_args *at = (void *)place(sizeof *at);
    at->flags = below(2) ? 1UL << below(40) | 1UL << below(40) : CLONE_PIDFD;
    at->flags &= ~(uint64_t)CLONE_VM;
    at->exit_signal = below(2) ? SIGCHLD : below(80);
    at->pidfd = at->parent_tid = at->child_tid = (uint64_t)area + 64 * below(AREA / 64);
    if (below(4) == 0)
        ((uint64_t *)at)[below(11)] = argument();
    at->flags &= ~(uint64_t)CLONE_VM;
    return (uint64_t)at;
}

static uint64_t ioctl_command(void) {
    static const uint32_t known[] = {
        0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x5406, 0x5407, 0x5408, 0x5409, 0x540a, 0x540b, 0x540c, 0x540d, 0x540e, 0x540f, 0x5410, 0x5411, 0x5412,
        0x5413, 0x5414, 0x541b, 0x5421, 0x5422, 0x5423, 0x5424, 0x5429, 0x542a, 0x542b, 0x5450, 0x5451, 0x5452, 0x80045430, 0x40045431, 0x80045439,
        0x5441, 0x8910, 0x8912, 0x8913, 0x8915, 0x8916, 0x891b, 0x8921, 0x8927, 0x8933, 0x8901, 0x8904, 0x8905, 0x40086602, 0x80086601, 0x5460, 0x40049409,
        0xb701, 0xb702, 0xb703, 0xb704, 0x8907, 0x541f, 0x1260, 0x80081272,
    };
    return below(8) ? known[below(sizeof known / sizeof *known)] : number();
}

static uint64_t make(char kind) {
    // Whatever is asked for: something else.
    if (below(25) == 0)
        return argument();
    switch (kind) {
    case 'd': return (uint64_t)descriptor();
    case 'D': return below(2) ? (uint64_t)(int64_t)AT_FDCWD : (uint64_t)descriptor();
    case 'p': return (uint64_t)path();
    case 'b': return (uint64_t)area + below(AREA);
    case 'n': return length();
    case 'i': return below(4) ? below(12) : number();
    case 'v': return vector();
    case 'V': return below(12) ? below(17) : number();
    case 'm': return message();
    case 'M': return messages();
    case 's': return address();
    case 'S': return below(8) ? address_length : number();
    case 'L': return words(1, small);
    case 't': return moment();
    case 'T': case 'N': return words(4, below(4) ? small : number);
    case 'e': {
        uint32_t *at = (void *)place(12);
        at[0] = below(4) ? 1U << below(32) | 5 : (uint32_t)rnd();
        return (uint64_t)at;
    }
    case 'E': return 1 + below(3);
    case 'P': {
        struct pollfd *at = (void *)place(16 * sizeof *at);
        for (int i = 0; i < 16; i++)
            at[i] = (struct pollfd){descriptor(), (short)rnd(), 0};
        return (uint64_t)at;
    }
    case 'g': return below(66);
    case 'G': return words(1, below(2) ? rnd : small);
    case '8': return below(12) ? 8 : number();
    case 'a': return action();
    case 'x': return below(3) == 0 ? 0 : below(2) ? 1UL << below(32) : 1UL << below(32) | 1UL << below(32);
    case 'A': return below(6) ? (uint64_t)mapped + PAGE * below(MAPPED / PAGE) : pointer();
    case 'Z': return below(8) ? PAGE * (1 + below(40)) : number();
    case 'J': return below(8) ? below(8) : number();
    case 'Y': return below(8) ? (below(2) ? MAP_PRIVATE : MAP_SHARED) | (below(2) ? MAP_ANONYMOUS : 0) | (below(3) ? 0 : MAP_FIXED) | (below(5) ? 0 : 1U << below(24))
                              : number();
    case 'w': return below(3) ? (below(2) ? 0 : (uint64_t)getpid()) : below(2) ? 2 + below(40) : number();
    case 'u': return below(2) ? below(3) : number();
    case 'o': return below(4) ? below(1 << 16) : number();
    case 'O': return below(2) ? 0 : words(1, below(4) ? small : number);
    case 'q': return (uint64_t)area + 4 * below(8);
    case 'Q': return below(14) | (below(2) ? FUTEX_PRIVATE_FLAG : 0) | (below(4) ? 0 : FUTEX_CLOCK_REALTIME);
    case 'r': return below(2) ? below(80) : below(2) ? 0x53564d41 : number();
    case 'R': return below(3) ? below(17) : 1024 + below(16);
    case 'F': return below(3) ? argument() : words(4, small);
    case 'I': return ioctl_command();
    case 'K': {
        static const int levels[] = {SOL_SOCKET, 0, 6, 17, 41, 270, 1};
        return (uint64_t)levels[below(7)];
    }
    case 'k': return below(80);
    case 'X': {
        static const char *const names[] = {"user.a", "user.b", "trusted.x", "security.capability", "system.posix_acl_access", "user.", "nothing", ""};
        return (uint64_t)names[below(8)];
    }
    case 'c': return below(8) ? below(12) : number();
    case 'h': {
        uint64_t *at = (void *)place(24);
        at[0] = below(2) ? O_RDWR : 1UL << below(26);
        at[1] = 0;
        at[2] = below(2) ? 0 : 1UL << below(6);
        return (uint64_t)at;
    }
    case 'y': return clone_arguments();
    case 'z': {
        struct sigevent *at = (void *)place(sizeof *at);
        at->sigev_notify = (int)below(6);
        at->sigev_signo = (int)below(66);
        return below(3) ? (uint64_t)at : 0;
    }
    case 'f': return below(4) | (below(2) ? O_CREAT : 0) | O_NONBLOCK | (below(3) ? 0 : 1UL << below(24));
    case 'l': return words(2, number);
    case 'B': return strings();
    case 'j': {
        static const char *const types[] = {"tmpfs", "proc", "sysfs", "devpts", "overlay", "mqueue", "cgroup2", ""};
        return (uint64_t)types[below(8)];
    }
    case 'W': return below(8) ? below(20) : number();
    case 'H': return below(4) ? WNOHANG | (1U << below(4)) : number();
    default: return number();
    }
}
