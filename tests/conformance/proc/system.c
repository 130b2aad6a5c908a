// /proc files about the system: their shape and keys, and agreement with the system calls that say the same. proc(5).
#include "../check.h"
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static char b[262144];
static bool has(const char *key) {
    size_t n = strlen(key);
    for (char *l = b; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
        if (!strncmp(l, key, n)) return true;
    return false;
}
static bool load(const char *path) { return get_file(path, b, sizeof b) != NULL; }
static long long number(const char *key) {
    char *p = strstr(b, key);
    return p ? atoll(p + strlen(key)) : -1;
}

int main(void) {
    struct sysinfo si;
    sysinfo(&si);
    RET("meminfo", load("/proc/meminfo") ? 0 : -1);
    static const char *mem[] = {"MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SwapCached:", "Active:", "Inactive:", "SwapTotal:", "SwapFree:", "Dirty:", "Writeback:",
        "AnonPages:", "Mapped:", "Shmem:", "Slab:", "SReclaimable:", "SUnreclaim:", "KernelStack:", "PageTables:", "CommitLimit:", "Committed_AS:", "VmallocTotal:", "VmallocUsed:", "HugePages_Total:", "HugePages_Free:", "Hugepagesize:"};
    for (size_t i = 0; i < COUNT(mem); i++) {
        char n[64];
        snprintf(n, sizeof n, "meminfo.%s", mem[i]);
        n[strlen(n) - 1] = 0;
        YES(n, has(mem[i]));
    }
    YES("meminfo.total_is_sysinfo's", llabs(number("MemTotal:") - (long long)(si.totalram / 1024 * si.mem_unit)) < 1024);
    YES("meminfo.free_within_total", number("MemFree:") <= number("MemTotal:") && number("MemAvailable:") <= number("MemTotal:"));
    val("meminfo.line", "%s", strstr(b, " kB\n") ? "kB" : "none");
    RET("cpuinfo", load("/proc/cpuinfo") ? 0 : -1);
    static const char *cpu[] = {"processor\t: 0", "vendor_id\t: ", "cpu family\t: ", "model\t\t: ", "model name\t: ", "stepping\t: ", "cpu MHz\t\t: ", "cache size\t: ", "physical id\t: ", "siblings\t: ", "core id\t\t: ",
        "cpu cores\t: ", "fpu\t\t: yes", "cpuid level\t: ", "flags\t\t: ", "bogomips\t: ", "clflush size\t: ", "cache_alignment\t: ", "address sizes\t: "};
    for (size_t i = 0; i < COUNT(cpu); i++) {
        char n[64];
        snprintf(n, sizeof n, "cpuinfo.%.*s", (int)strcspn(cpu[i], "\t"), cpu[i]);
        YES(n, has(cpu[i]));
    }
    int cpus = 0;
    for (char *p = b; (p = strstr(p, "processor\t:")); p++) cpus++;
    YES("cpuinfo.count", cpus == sysconf(_SC_NPROCESSORS_ONLN));
    YES("cpuinfo.flags", strstr(b, " sse2 ") && strstr(b, " fpu ") ? 1 : strstr(b, ": fpu ") && strstr(b, " sse2 "));
    RET("stat", load("/proc/stat") ? 0 : -1);
    static const char *st[] = {"cpu  ", "cpu0 ", "intr ", "ctxt ", "btime ", "processes ", "procs_running ", "procs_blocked "};
    for (size_t i = 0; i < COUNT(st); i++) {
        char n[64];
        snprintf(n, sizeof n, "stat.%.*s", (int)strcspn(st[i], " "), st[i]);
        YES(n, has(st[i]));
    }
    unsigned long long v[10];
    val("stat.cpu_fields", "%d", sscanf(b, "cpu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7, v + 8, v + 9));
    struct timespec rt, bt;
    clock_gettime(CLOCK_REALTIME, &rt);
    clock_gettime(CLOCK_BOOTTIME, &bt);
    YES("stat.btime", llabs(number("btime ") - (rt.tv_sec - bt.tv_sec)) <= 2);
    double up, idle, l1, l5, l15;
    load("/proc/uptime");
    val("uptime", "%d fields", sscanf(b, "%lf %lf", &up, &idle));
    clock_gettime(CLOCK_BOOTTIME, &bt);
    YES("uptime.is_boottime", up <= bt.tv_sec + 1 && up >= bt.tv_sec - 2);
    int run, all, last;
    load("/proc/loadavg");
    val("loadavg", "%d fields", sscanf(b, "%lf %lf %lf %d/%d %d", &l1, &l5, &l15, &run, &all, &last));
    struct utsname u;
    uname(&u);
    load("/proc/version");
    YES("version", !strncmp(b, "Linux version ", 14) && !strncmp(b + 14, u.release, strlen(u.release)));
    load("/proc/sys/kernel/osrelease");
    YES("osrelease", !strncmp(b, u.release, strlen(u.release)) && b[strlen(u.release)] == '\n');
    load("/proc/sys/kernel/ostype");
    val("ostype", "%.5s", b);
    load("/proc/sys/kernel/version");
    YES("sys.version", !strncmp(b, u.version, strlen(u.version)));
    load("/proc/sys/kernel/hostname");
    YES("hostname", !strncmp(b, u.nodename, strlen(u.nodename)));
    load("/proc/sys/kernel/pid_max");
    YES("pid_max", atoi(b) >= 32768);
    load("/proc/sys/kernel/cap_last_cap");
    val("cap_last_cap", "%d", atoi(b));
    load("/proc/sys/kernel/ngroups_max");
    val("ngroups_max", "%d", atoi(b));
    char id[64];
    load("/proc/sys/kernel/random/boot_id");
    snprintf(id, sizeof id, "%.36s", b);
    val("boot_id", "len %zu dashes %d", strlen(b), b[8] == '-' && b[13] == '-' && b[18] == '-' && b[23] == '-');
    load("/proc/sys/kernel/random/boot_id");
    YES("boot_id.stays", !strncmp(id, b, 36));
    load("/proc/sys/kernel/random/uuid");
    snprintf(id, sizeof id, "%.36s", b);
    load("/proc/sys/kernel/random/uuid");
    val("uuid", "len %zu", strlen(b));
    YES("uuid.changes", strncmp(id, b, 36));
    YES("random.entropy_avail", load("/proc/sys/kernel/random/entropy_avail") && atoi(b) > 0);
    YES("threads_max", load("/proc/sys/kernel/threads-max") && atoi(b) > 0);
    YES("overcommit_memory", load("/proc/sys/vm/overcommit_memory") && atoi(b) >= 0 && atoi(b) <= 2);
    YES("max_map_count", load("/proc/sys/vm/max_map_count") && atoi(b) >= 65530);
    YES("mmap_min_addr", load("/proc/sys/vm/mmap_min_addr") && atoi(b) >= 0);
    YES("file_max", load("/proc/sys/fs/file-max") && atoll(b) > 0);
    YES("nr_open", load("/proc/sys/fs/nr_open") && atoll(b) >= 1024);
    YES("pipe_max_size", load("/proc/sys/fs/pipe-max-size") && atoi(b) >= 65536);
    YES("file_nr", load("/proc/sys/fs/file-nr") && strchr(b, '\t'));
    YES("somaxconn", load("/proc/sys/net/core/somaxconn") && atoi(b) > 0);
    YES("ip_local_port_range", load("/proc/sys/net/ipv4/ip_local_port_range") && strchr(b, '\t'));
    load("/proc/filesystems");
    YES("filesystems.proc", strstr(b, "nodev\tproc\n"));
    YES("filesystems.tmpfs", strstr(b, "nodev\ttmpfs\n"));
    YES("mounts", load("/proc/mounts") && strstr(b, " / ") && strstr(b, " proc "));
    char l[64];
    ssize_t n = readlink("/proc/mounts", l, 63);
    l[n > 0 ? n : 0] = 0;
    val("mounts.link", "%s", l);
    n = readlink("/proc/net", l, 63);
    l[n > 0 ? n : 0] = 0;
    val("net.link", "%s", l);
    YES("swaps", load("/proc/swaps") && !strncmp(b, "Filename", 8));
    YES("vmstat", load("/proc/vmstat") && has("nr_free_pages ") && has("pgfault "));
    YES("diskstats_or_absent", load("/proc/diskstats") || errno == ENOENT);
    YES("devices", load("/proc/devices") && strstr(b, "Character devices:"));
    YES("cmdline", load("/proc/cmdline"));
    YES("net.dev", load("/proc/net/dev") && strstr(b, "lo:"));
    YES("net.tcp", load("/proc/net/tcp") && strstr(b, "local_address"));
    YES("net.tcp6", load("/proc/net/tcp6") && strstr(b, "local_address"));
    YES("net.udp", load("/proc/net/udp") && strstr(b, "local_address"));
    YES("net.unix", load("/proc/net/unix") && !strncmp(b, "Num ", 4));
    YES("net.route", load("/proc/net/route") && !strncmp(b, "Iface\t", 6));
    YES("net.if_inet6", load("/proc/net/if_inet6"));
    // sysinfo and sysconf
    YES("sysinfo.uptime", labs(si.uptime - bt.tv_sec) <= 2);
    YES("sysinfo.memory", si.totalram > 0 && si.freeram <= si.totalram && si.mem_unit > 0);
    YES("sysinfo.procs", si.procs > 0);
    RET("sysinfo.bad", syscall(SYS_sysinfo, 8));
    RET("sysconf.pagesize", sysconf(_SC_PAGESIZE));
    YES("sysconf.nproc_conf", sysconf(_SC_NPROCESSORS_CONF) >= sysconf(_SC_NPROCESSORS_ONLN));
    YES("sysconf.phys_pages", sysconf(_SC_PHYS_PAGES) > 0 && sysconf(_SC_AVPHYS_PAGES) > 0);
    val("uname", "%s %s", u.sysname, u.machine);
    YES("uname.release_is_a_number", strspn(u.release, "0123456789.") >= 3);
    RET("uname.bad", syscall(SYS_uname, 8));
    // The listing of /proc has every process once, with ourselves.
    DIR *d = opendir("/proc");
    int me = 0, self = 0, wrong = 0;
    for (struct dirent *e; (e = readdir(d));) {
        me += atoi(e->d_name) == getpid();
        self += !strcmp(e->d_name, "self");
        struct stat s2;
        if (atoi(e->d_name) == getpid()) wrong += fstatat(dirfd(d), e->d_name, &s2, 0) || !S_ISDIR(s2.st_mode);
    }
    closedir(d);
    val("listing", "me %d self %d wrong %d", me, self, wrong);
    // /sys files that runtimes read.
    YES("sys.cpu_online", load("/sys/devices/system/cpu/online") && b[0] == '0');
    YES("sys.cpu_possible", load("/sys/devices/system/cpu/possible") && b[0] == '0');
    return 0;
}
