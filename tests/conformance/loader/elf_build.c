// Hand-made ELF files: what the loader must accept and what it must refuse, with which errno or signal. execve(2), elf(5).
#include "../check.h"
#include <elf.h>

// Code that exits with the byte at [rip+...]: the tests patch what they need.
static unsigned char exit_7[] = {0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05};
extern char **environ;

struct image {
    Elf64_Ehdr eh;
    Elf64_Phdr ph[4];
    unsigned char code[256];
};
#define BASE 0x10000000UL
static struct image fresh(void) {
    struct image i;
    memset(&i, 0, sizeof i);
    memcpy(i.eh.e_ident, ELFMAG, SELFMAG);
    i.eh.e_ident[EI_CLASS] = ELFCLASS64;
    i.eh.e_ident[EI_DATA] = ELFDATA2LSB;
    i.eh.e_ident[EI_VERSION] = EV_CURRENT;
    i.eh.e_type = ET_EXEC;
    i.eh.e_machine = EM_X86_64;
    i.eh.e_version = EV_CURRENT;
    i.eh.e_entry = BASE + offsetof(struct image, code);
    i.eh.e_phoff = offsetof(struct image, ph);
    i.eh.e_ehsize = sizeof(Elf64_Ehdr);
    i.eh.e_phentsize = sizeof(Elf64_Phdr);
    i.eh.e_phnum = 1;
    i.ph[0] = (Elf64_Phdr){PT_LOAD, PF_R | PF_X, 0, BASE, BASE, sizeof i, sizeof i, PAGE};
    memcpy(i.code, exit_7, sizeof exit_7);
    return i;
}
static void run_bytes(const char *name, const void *p, size_t n) {
    int fd = MUST(open("prog", O_WRONLY | O_CREAT | O_TRUNC, 0755));
    MUST(write(fd, p, n));
    close(fd);
    char *av[] = {"prog", NULL};
    int st = CHILD(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); execve("./prog", av, environ); _exit(errno == ENOEXEC ? 201 : errno == EINVAL ? 202 : errno == ENOMEM ? 203 : errno == ENOENT ? 204 : errno == EACCES ? 205 : errno == ELIBBAD ? 206 : errno == EIO ? 207 : errno == EFAULT ? 208 : 200));
    static const char *e[] = {"other errno", "ENOEXEC", "EINVAL", "ENOMEM", "ENOENT", "EACCES", "ELIBBAD", "EIO", "EFAULT"};
    if (WIFEXITED(st) && WEXITSTATUS(st) >= 200 && WEXITSTATUS(st) <= 208) val(name, "%s", e[WEXITSTATUS(st) - 200]);
    else val(name, "%s", wname(st));
}
static void run(const char *name, const struct image *i) { run_bytes(name, i, sizeof *i); }

int main(void) {
    tmp_enter();
    struct image i = fresh();
    run("minimal", &i);
    i = fresh();
    i.eh.e_ident[EI_CLASS] = ELFCLASS32;
    run("class_32_is_not_looked_at", &i);
    i = fresh();
    i.eh.e_ident[EI_DATA] = ELFDATA2MSB;
    run("big_endian_ident_is_not_looked_at", &i);
    i = fresh();
    i.eh.e_version = 99;
    run("version_is_not_looked_at", &i);
    i = fresh();
    i.eh.e_type = ET_DYN;
    i.ph[0].p_vaddr = 0;
    i.eh.e_entry = offsetof(struct image, code);
    run("et_dyn_without_interpreter", &i);
    i = fresh();
    i.eh.e_type = ET_CORE;
    run("et_core", &i);
    i = fresh();
    i.eh.e_phnum = 0;
    run("no_program_headers", &i);
    i = fresh();
    i.eh.e_phentsize = 32;
    run("phentsize", &i);
    i = fresh();
    i.eh.e_phoff = 1 << 20;
    run("phoff_beyond_file", &i);
    i = fresh();
    i.eh.e_phoff = ~0UL - 10;
    run("phoff_wraps", &i);
    i = fresh();
    i.eh.e_phnum = 2000; // more than a 64 KiB table
    run("too_many_headers", &i);
    i = fresh();
    i.ph[0].p_type = PT_NOTE;
    run("no_load_segment", &i);
    // Segments.
    i = fresh();
    i.ph[0].p_flags = PF_R;
    run("entry_not_executable", &i);
    i = fresh();
    i.eh.e_entry = 0x30000000;
    run("entry_not_mapped", &i);
    i = fresh();
    i.eh.e_entry = 0xffff800000000000;
    run("entry_in_kernel", &i);
    i = fresh();
    i.ph[0].p_vaddr = 0xffff800000000000;
    run("segment_in_kernel", &i);
    i = fresh();
    i.ph[0].p_vaddr = 0x7ffffffff000;
    run("segment_at_task_end", &i);
    i = fresh();
    i.ph[0].p_memsz = 1UL << 60;
    run("memsz_huge", &i);
    i = fresh();
    i.ph[0].p_memsz = 10;
    run("filesz_above_memsz", &i);
    i = fresh();
    i.ph[0].p_filesz = 1 << 20;
    i.ph[0].p_memsz = 1 << 20;
    run("filesz_beyond_file", &i);
    i = fresh();
    i.ph[0].p_offset = 1; // not congruent to the address
    run("offset_not_congruent", &i);
    i = fresh();
    i.ph[0].p_vaddr = BASE + 0x100;
    i.eh.e_entry += 0x100;
    run("address_not_congruent", &i);
    i = fresh();
    i.ph[0].p_align = 3;
    run("alignment_is_no_power", &i);
    i = fresh();
    i.eh.e_phnum = 2;
    i.ph[1] = (Elf64_Phdr){PT_LOAD, PF_R | PF_W, 0, BASE, BASE, 64, 64, PAGE};
    run("second_covers_first", &i);
    // A bss: zero after the file's part, also in the rest of the last page and beyond.
    i = fresh();
    i.eh.e_phnum = 2;
    i.ph[1] = (Elf64_Phdr){PT_LOAD, PF_R | PF_W, 0, BASE + 0x100000, BASE + 0x100000, 100, 3 * PAGE, PAGE};
    unsigned char bss[] = {0x31, 0xff,                                           // xor edi, edi
                           0x0f, 0xb6, 0x04, 0x25, 0x64, 0x00, 0x10, 0x10,       // movzx eax, byte [BASE+0x100064]
                           0x01, 0xc7,                                           // add edi, eax
                           0x0f, 0xb6, 0x04, 0x25, 0xff, 0x0f, 0x10, 0x10,       // movzx eax, byte [BASE+0x100fff]
                           0x01, 0xc7,
                           0x0f, 0xb6, 0x04, 0x25, 0xff, 0x2f, 0x10, 0x10,       // movzx eax, byte [BASE+0x102fff]
                           0x01, 0xc7,
                           0x83, 0xc7, 0x05,                                     // add edi, 5
                           0xb8, 60, 0, 0, 0, 0x0f, 0x05};
    memcpy(i.code, bss, sizeof bss);
    run("bss_is_zero", &i);
    i.ph[1].p_flags = PF_R;
    run("bss_in_readonly_segment", &i);
    i = fresh();
    i.eh.e_phnum = 2;
    i.ph[1] = (Elf64_Phdr){PT_LOAD, PF_R | PF_W, 0, BASE + 0x100000, BASE + 0x100000, 0, PAGE, PAGE};
    unsigned char only_bss[] = {0xc6, 0x04, 0x25, 0x00, 0x08, 0x10, 0x10, 0x09, // mov byte [BASE+0x100800], 9
                                0x0f, 0xb6, 0x3c, 0x25, 0x00, 0x08, 0x10, 0x10, // movzx edi, byte [..]
                                0xb8, 60, 0, 0, 0, 0x0f, 0x05};
    memcpy(i.code, only_bss, sizeof only_bss);
    run("segment_of_bss_only", &i);
    // Execution on the stack as PT_GNU_STACK says.
    unsigned char on_stack[] = {0x48, 0xb8, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0x90,  // movabs rax, code: mov eax,60; syscall; nop
                                0xbf, 11, 0, 0, 0,                              // mov edi, 11
                                0x50,                                           // push rax
                                0xff, 0xe4};                                    // jmp rsp
    i = fresh();
    i.eh.e_phnum = 2;
    i.ph[1] = (Elf64_Phdr){PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16};
    memcpy(i.code, on_stack, sizeof on_stack);
    run("gnu_stack.no_exec", &i);
    i.ph[1].p_flags = PF_R | PF_W | PF_X;
    run("gnu_stack.exec", &i);
    i.eh.e_phnum = 1;
    run("gnu_stack.absent", &i);
    // Registers and stack at the entry.
    i = fresh();
    unsigned char regs[] = {0x48, 0x89, 0xe7, 0x83, 0xe7, 0x0f,             // mov rdi, rsp; and edi, 15
                            0x48, 0x09, 0xdf, 0x48, 0x09, 0xef, 0x4c, 0x09, 0xe7, // or rdi, rbx; rbp; r12
                            0x48, 0x09, 0xcf, 0x48, 0x09, 0xd7, 0x4c, 0x09, 0xef, // or rdi, rcx; rdx; r13
                            0x4c, 0x09, 0xf7, 0x4c, 0x09, 0xff,             // or rdi, r14; r15
                            0x48, 0x85, 0xff, 0x0f, 0x95, 0xc0, 0x0f, 0xb6, 0xf8, // test; setnz al; movzx edi, al
                            0x83, 0xc7, 0x03, 0xb8, 60, 0, 0, 0, 0x0f, 0x05};
    memcpy(i.code, regs, sizeof regs);
    run("registers_are_zero", &i);
    // Interpreters.
    i = fresh();
    i.eh.e_phnum = 2;
    i.ph[1] = i.ph[0];
    size_t at = offsetof(struct image, code) + 128;
#define INTERP(path, n) (strcpy((char *)i.code + 128, path), i.ph[0] = (Elf64_Phdr){PT_INTERP, PF_R, at, 0, 0, n, n, 1})
    INTERP("/no/such/ld.so", sizeof "/no/such/ld.so");
    run("interp.missing", &i);
    INTERP("/no/such/ld.so", sizeof "/no/such/ld.so" - 1);
    run("interp.not_terminated", &i);
    INTERP("", 1);
    run("interp.too_short", &i);
    i.ph[0].p_filesz = 5000;
    run("interp.too_long", &i);
    i.ph[0].p_filesz = 16;
    i.ph[0].p_offset = 1 << 20;
    run("interp.beyond_file", &i);
    INTERP("/", 2);
    run("interp.directory", &i);
    put_file("text", "not an elf file, but long enough to be read as a header......................................", 0755);
    INTERP("./text", 7);
    run("interp.not_elf", &i);
    put_file("noexec", "x", 0644);
    INTERP("./noexec", 9);
    run("interp.not_executable", &i);
    put_file("tiny", "\177ELF", 0755);
    INTERP("./tiny", 7);
    run("interp.cut", &i);
    // A good one: itself a minimal program, which then runs instead.
    struct image k = fresh();
    k.eh.e_type = ET_DYN;
    k.ph[0].p_vaddr = 0;
    k.ph[0].p_flags |= PF_W; // Linux before 6.5 clears the rest of the last page even without a bss
    k.eh.e_entry = offsetof(struct image, code);
    k.code[6] = 33;
    int fd = MUST(open("ld", O_WRONLY | O_CREAT, 0755));
    MUST(write(fd, &k, sizeof k));
    close(fd);
    INTERP("./ld", 5);
    run("interp.runs", &i);
    // Short files.
    i = fresh();
    static const size_t cuts[] = {0, 1, 4, 16, 63, 64, 100, 119, 120};
    for (size_t c = 0; c < COUNT(cuts); c++) {
        char name[32];
        snprintf(name, sizeof name, "cut_at_%zu", cuts[c]);
        run_bytes(name, &i, cuts[c]);
    }
    return 0;
}
