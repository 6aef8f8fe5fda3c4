// What Swift cannot import from the kernel's and libc's headers: request macros, variadic calls,
// function-like macros, volatile and atomic access. No logic lives here.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

// Request numbers as one typed enum: only these can be passed to the ioctl calls below.
typedef enum vmm_ioctl : uint64_t {
    VMM_KVM_GET_API_VERSION = KVM_GET_API_VERSION,
    VMM_KVM_CREATE_VM = KVM_CREATE_VM,
    VMM_KVM_CHECK_EXTENSION = KVM_CHECK_EXTENSION,
    VMM_KVM_GET_VCPU_MMAP_SIZE = KVM_GET_VCPU_MMAP_SIZE,
    VMM_KVM_GET_SUPPORTED_CPUID = KVM_GET_SUPPORTED_CPUID,
    VMM_KVM_CREATE_VCPU = KVM_CREATE_VCPU,
    VMM_KVM_SET_USER_MEMORY_REGION = KVM_SET_USER_MEMORY_REGION,
    VMM_KVM_SET_TSS_ADDR = KVM_SET_TSS_ADDR,
    VMM_KVM_SET_IDENTITY_MAP_ADDR = KVM_SET_IDENTITY_MAP_ADDR,
    VMM_KVM_ENABLE_CAP = KVM_ENABLE_CAP,
    VMM_KVM_SET_GSI_ROUTING = KVM_SET_GSI_ROUTING,
    VMM_KVM_IRQFD = KVM_IRQFD,
    VMM_KVM_IOEVENTFD = KVM_IOEVENTFD,
    VMM_KVM_SIGNAL_MSI = KVM_SIGNAL_MSI,
    VMM_KVM_RUN = KVM_RUN,
    VMM_KVM_GET_REGS = KVM_GET_REGS,
    VMM_KVM_SET_REGS = KVM_SET_REGS,
    VMM_KVM_GET_SREGS = KVM_GET_SREGS,
    VMM_KVM_SET_SREGS = KVM_SET_SREGS,
    VMM_KVM_SET_FPU = KVM_SET_FPU,
    VMM_KVM_GET_MSRS = KVM_GET_MSRS,
    VMM_KVM_SET_MSRS = KVM_SET_MSRS,
    VMM_KVM_SET_CPUID2 = KVM_SET_CPUID2,
    VMM_KVM_GET_LAPIC = KVM_GET_LAPIC,
    VMM_KVM_SET_LAPIC = KVM_SET_LAPIC,
    VMM_KVM_GET_TSC_KHZ = KVM_GET_TSC_KHZ,
    VMM_KVM_GET_VCPU_EVENTS = KVM_GET_VCPU_EVENTS,
    VMM_KVM_GET_CLOCK = KVM_GET_CLOCK,
    VMM_KVM_SET_CLOCK = KVM_SET_CLOCK,
    VMM_KVM_KVMCLOCK_CTRL = KVM_KVMCLOCK_CTRL,
    VMM_KVM_GET_DEVICE_ATTR = KVM_GET_DEVICE_ATTR,
    VMM_KVM_SET_DEVICE_ATTR = KVM_SET_DEVICE_ATTR,

    VMM_TUNSETIFF = TUNSETIFF,
    VMM_TUNGETFEATURES = TUNGETFEATURES,
    VMM_TUNSETOFFLOAD = TUNSETOFFLOAD,
    VMM_TUNSETVNETHDRSZ = TUNSETVNETHDRSZ,
    VMM_TUNGETIFF = TUNGETIFF,
    VMM_TUNSETQUEUE = TUNSETQUEUE,
    VMM_SIOCSIFADDR = SIOCSIFADDR,
    VMM_SIOCSIFNETMASK = SIOCSIFNETMASK,
    VMM_SIOCSIFHWADDR = SIOCSIFHWADDR,
    VMM_SIOCGIFHWADDR = SIOCGIFHWADDR,
    VMM_SIOCGIFFLAGS = SIOCGIFFLAGS,
    VMM_SIOCSIFFLAGS = SIOCSIFFLAGS,
    VMM_SIOCSIFMTU = SIOCSIFMTU,
    VMM_SIOCGIFMTU = SIOCGIFMTU,
    VMM_SIOCGIFINDEX = SIOCGIFINDEX,

    VMM_FIONREAD = FIONREAD,
    VMM_TIOCGWINSZ = TIOCGWINSZ,
    VMM_TCGETS = TCGETS,
    VMM_TCSETS = TCSETS,
    VMM_TIOCGPGRP = TIOCGPGRP,
    VMM_TIOCGPTN = TIOCGPTN,
    VMM_TIOCSPTLCK = TIOCSPTLCK,
    VMM_TIOCGPTPEER = TIOCGPTPEER,
    VMM_BLKGETSIZE64 = BLKGETSIZE64,
    VMM_BLKSSZGET = BLKSSZGET,
    VMM_BLKPBSZGET = BLKPBSZGET,
    VMM_BLKDISCARD = BLKDISCARD,
    VMM_BLKZEROOUT = BLKZEROOUT,
} vmm_ioctl;

static inline int vmm_ioctl_value(int fd, vmm_ioctl request, uint64_t argument) {
    return ioctl(fd, (unsigned long)request, (unsigned long)argument);
}

static inline int vmm_ioctl_pointer(int fd, vmm_ioctl request, void *argument) {
    return ioctl(fd, (unsigned long)request, argument);
}

static inline int vmm_open(const char *path, int flags, mode_t mode) {
    return open(path, flags, mode);
}

static inline int vmm_open_at(int folder, const char *name, int flags, mode_t mode) {
    return openat(folder, name, flags, mode);
}

static inline int vmm_fcntl(int fd, int command, int argument) {
    return fcntl(fd, command, argument);
}

static inline int vmm_fcntl_lock(int fd, int command, struct flock *lock) {
    return fcntl(fd, command, lock);
}

// Linux AIO by number: glibc has no wrappers, and libaio is no more than this.
static inline int vmm_io_setup(unsigned depth, aio_context_t *context) {
    return (int)syscall(SYS_io_setup, depth, context);
}

static inline int vmm_io_destroy(aio_context_t context) {
    return (int)syscall(SYS_io_destroy, context);
}

static inline int vmm_io_submit(aio_context_t context, long count, struct iocb **list) {
    return (int)syscall(SYS_io_submit, context, count, list);
}

static inline int vmm_io_getevents(
    aio_context_t context, long least, long most, struct io_event *events) {
    return (int)syscall(SYS_io_getevents, context, least, most, events, (void *)0);
}

static inline int vmm_fallocate(int fd, int mode, int64_t offset, int64_t count) {
    return (int)syscall(SYS_fallocate, fd, mode, offset, count);
}

// The larger of the memory and offset alignment that O_DIRECT needs; 0 where the kernel does not
// tell. Called by number: glibc before 2.37 knows neither the mask nor the fields.
static inline uint32_t vmm_direct_alignment(int fd) {
    struct { uint8_t before[0x98]; uint32_t memory, offset; uint8_t after[0x60]; } found = {0};
    if (syscall(SYS_statx, fd, "", 0x1000 /* AT_EMPTY_PATH */, 0x2000 /* DIOALIGN */, &found) != 0)
        return 0;
    return found.memory > found.offset ? found.memory : found.offset;
}

// Confinement of the calling thread, by number: glibc has no wrappers.
static inline int vmm_seccomp(unsigned operation, unsigned flags, const void *argument) {
    return (int)syscall(SYS_seccomp, operation, flags, argument);
}

// What a set of landlock rules is about; an older kernel knows the first fields alone.
struct vmm_landlock {
    uint64_t files, network, scopes;
};

// Returns a descriptor, or with `rules` null the kernel's version of landlock.
static inline int vmm_landlock_create(
    const struct vmm_landlock *rules, size_t size, uint32_t flags) {
    return (int)syscall(444, rules, size, flags);
}

static inline int vmm_landlock_allow(int rules, int file, uint64_t access) {
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = file};
    return (int)syscall(445, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static inline int vmm_landlock_restrict(int rules) { return (int)syscall(446, rules, 0); }

static inline int vmm_prctl(int option, unsigned long argument) {
    return prctl(option, argument, 0, 0, 0);
}

// PR_SCHED_CORE with PR_SCHED_CORE_CREATE, for the calling thread or its whole process.
static inline int vmm_schedule_cores(int whole_process) {
    return prctl(62, 1, 0, whole_process ? 1 : 0, 0);
}

// PR_SCHED_CORE with PR_SCHED_CORE_GET, of the calling thread: 0 or errno.
static inline int vmm_know_cores(void) {
    uint64_t cookie = 0;
    return prctl(62, 0, 0, 0, &cookie) == 0 ? 0 : errno;
}

// Keeps of the calling thread's capabilities those of `kept` that it has.
static inline int vmm_keep_capabilities(uint64_t kept) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0) return -1;
    for (int i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(kept >> (32 * i));
        data[i].effective &= (uint32_t)(kept >> (32 * i));
        data[i].inheritable = 0;
    }
    return (int)syscall(SYS_capset, &header, data);
}

// The call that a filter refused, from what came with SIGSYS.
static inline int vmm_refused_call(const siginfo_t *info) { return info->si_syscall; }

static inline int vmm_set_thread_name(const char *name) {
    return prctl(PR_SET_NAME, (unsigned long)name, 0, 0, 0);
}

static inline int vmm_get_thread_name(char *name) {
    return prctl(PR_GET_NAME, (unsigned long)name, 0, 0, 0);
}

// A child process. It runs in the parent's memory until it executes its program, so that a large
// monitor starts it as fast as a small one (clone(2), as vfork); what it may do until then is only
// system calls, and so it is C.
struct vmm_child {
    const char *path;
    char *const *arguments;
    const int *kept;   // descriptors that stay open under their numbers
    size_t kept_count;
    int output;        // becomes standard output and error
    int null;          // becomes standard input
    pid_t parent;
    int code;          // errno of what failed before the program ran
};

// <sched.h> and <unistd.h> have these only with _GNU_SOURCE, which is not set here.
extern int clone(int (*)(void *), void *, int, void *, ...);
extern char **__environ;

static inline int vmm_child_main(void *argument) {
    struct vmm_child *child = argument;
    sigset_t none;
    // Ends with the thread that started it; which may have ended already.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != child->parent) goto fail;
    // The terminal's signals are for the parent, which ends the child itself.
    setsid();
    if (dup2(child->null, 0) < 0 || dup2(child->output, 1) < 0 || dup2(child->output, 2) < 0)
        goto fail;
    for (size_t i = 0; i < child->kept_count; i++)
        if (fcntl(child->kept[i], F_SETFD, 0) != 0) goto fail;
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGTTIN, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    execve(child->path, child->arguments, __environ);
fail:
    child->code = errno ? errno : ESRCH;
    _exit(127);
}

static inline pid_t vmm_start_child(struct vmm_child *child, void *stack_end, int *pidfd) {
    sigset_t all, before;
    sigfillset(&all);
    child->code = 0;
    child->parent = getpid();
    // No handler of the parent's may run in the child.
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(
        vmm_child_main, stack_end, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, child, pidfd);
    if (pid < 0) child->code = errno;
    pthread_sigmask(SIG_SETMASK, &before, 0);
    return pid;
}

// The interface that a socket's packets go by.
static inline int vmm_bind_to_device(int socket, const char *name) {
    return setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name));
}

// glibc's looks at the file by a call that takes paths, which a filter cannot tell apart.
static inline int vmm_fstat(int descriptor, struct stat *status) {
    return (int)syscall(SYS_fstat, descriptor, status);
}

// By the descriptor of a process: no other one can be meant.
static inline int vmm_signal_process(int descriptor, int signal) {
    return (int)syscall(SYS_pidfd_send_signal, descriptor, signal, NULL, 0);
}

// What a jail is made by: <sched.h>, <sys/mount.h> and <grp.h> have it only with _GNU_SOURCE, or
// for all threads at once.
static inline int vmm_unshare(int kinds) { return (int)syscall(SYS_unshare, kinds); }

static inline int vmm_enter_namespace(int descriptor, int kind) {
    return (int)syscall(SYS_setns, descriptor, kind);
}

static inline int vmm_mount(
    const char *source, const char *target, const char *type, unsigned long flags,
    const char *options) {
    return (int)syscall(SYS_mount, source, target, type, flags, options);
}

// A copy of a mount, and of all that is mounted below it, which is nowhere yet
// (open_tree(2), Linux 5.2); what it forbids from now on (mount_setattr(2), 5.12); and its place
// (move_mount(2)).
enum { VMM_AT_EMPTY_PATH = 0x1000, VMM_AT_RECURSIVE = 0x8000 };  // <fcntl.h> with _GNU_SOURCE

static inline int vmm_copy_mount(const char *path) {
    return (int)syscall(
        SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | VMM_AT_RECURSIVE);
}

static inline int vmm_limit_mount(int mount, unsigned long limits) {
    struct mount_attr attributes = {.attr_set = limits};
    return (int)syscall(
        SYS_mount_setattr, mount, "", VMM_AT_EMPTY_PATH | VMM_AT_RECURSIVE, &attributes,
        sizeof attributes);
}

static inline int vmm_place_mount(int mount, int target) {
    return (int)syscall(
        SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static inline int vmm_unmount_lazily(const char *target) {
    return (int)syscall(SYS_umount2, target, 2);  // MNT_DETACH
}

static inline int vmm_pivot_root(const char *root, const char *old) {
    return (int)syscall(SYS_pivot_root, root, old);
}

static inline int vmm_close_range(unsigned first, unsigned last) {
    return (int)syscall(SYS_close_range, first, last, 0);
}

static inline int vmm_make_character_device(
    int folder, const char *name, mode_t mode, unsigned major, unsigned minor) {
    return mknodat(folder, name, S_IFCHR | mode, makedev(major, minor));
}

// A descriptor of the calling process, readable when it has ended (pidfd_open(2), Linux 5.3).
static inline int vmm_own_process(void) { return (int)syscall(SYS_pidfd_open, getpid(), 0); }

// The calling thread, of a process that has no other.
static inline int vmm_become(uid_t user, gid_t group) {
    if (syscall(SYS_setgroups, 0, NULL) != 0 && errno != EPERM) return -1;
    if (syscall(SYS_setresgid, group, group, group) != 0) return -1;
    return (int)syscall(SYS_setresuid, user, user, user);
}

// Swift has no fork(), for it is no good where there are threads.
static inline pid_t vmm_fork(void) { return fork(); }

// The words that the program was started with, by the layout of a new process's stack that the
// System V ABI gives: their count, they, a null, the environment. Swift's own CommandLine reads them
// from /proc, which a jail does not have. Null once somebody has changed the environment.
static inline char **vmm_initial_arguments(long *count) {
    char **end = __environ - 1;
    if ((uintptr_t)end < (uintptr_t)&end) return NULL;
    *count = 0;
    while ((uintptr_t)end[-1 - *count] != (uintptr_t)*count) ++*count;
    return end - *count;
}

static inline int vmm_execute(const char *path, char *const *arguments) {
    char *nothing[] = {NULL};
    return execve(path, arguments, nothing);
}

static inline int64_t vmm_thread_id(void) { return syscall(SYS_gettid); }

static inline int vmm_thread_kill(int64_t thread, int signal) {
    return (int)syscall(SYS_tgkill, getpid(), thread, signal);
}

// The CPUs that this process may use; the kernel returns the size of its mask in bytes.
static inline int vmm_processor_count(void) {
    unsigned long mask[1024 / sizeof(unsigned long)] = {0};
    long size = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    int count = 0;
    for (long i = 0; i < size / (long)sizeof(unsigned long); i++)
        count += __builtin_popcountl(mask[i]);
    return count;
}

// Keeps the calling thread on some CPUs: `count` words of 64, lowest CPU first.
static inline int vmm_set_affinity(const uint64_t *words, size_t count) {
    return (int)syscall(SYS_sched_setaffinity, 0, count * sizeof(*words), words);
}

// A client of a listening socket, without its address.
static inline int vmm_accept(int fd, int flags) {
    return (int)syscall(SYS_accept4, fd, NULL, NULL, flags);
}

static inline int vmm_sigrtmin(void) { return SIGRTMIN; }

// struct kvm_run keeps the port data at an offset inside its own mapping.
static inline void *vmm_kvm_run_data(struct kvm_run *run, uint64_t offset) {
    return (uint8_t *)run + offset;
}

// Written by the thread that kicks and read by the kernel on the vCPU's thread. Sequentially
// consistent: forgetting a kick must not fall behind the look at what it was for.
static inline void vmm_kvm_set_immediate_exit(struct kvm_run *run, uint8_t value) {
    __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

// The linker's names for the bounds of the program's code (end(3)).
extern char __executable_start[];
extern char etext[];
static inline void *vmm_code_start(void) { return __executable_start; }
static inline void *vmm_code_end(void) { return etext; }

// Kernel structs with a flexible array: header and entries in one block the caller allocates.
_Static_assert(sizeof(struct kvm_cpuid_entry2) == 40, "KVM api 4.20");
_Static_assert(sizeof(struct kvm_cpuid2) == 8, "KVM api 4.20");
_Static_assert(sizeof(struct kvm_msr_entry) == 16, "KVM api 4.19");
_Static_assert(sizeof(struct kvm_msrs) == 8, "KVM api 4.19");
// What KVM_GET_MSRS takes, with room for one.
struct vmm_one_msr { uint32_t count, padding; struct kvm_msr_entry entry; };
_Static_assert(sizeof(struct vmm_one_msr) == 24, "KVM api 4.18");
_Static_assert(sizeof(struct kvm_irq_routing_entry) == 48, "KVM api 4.52");
_Static_assert(sizeof(struct kvm_irq_routing) == 8, "KVM api 4.52");
_Static_assert(sizeof(struct kvm_userspace_memory_region) == 32, "KVM api 4.35");
_Static_assert(sizeof(struct kvm_irqfd) == 32, "KVM api 4.75");
_Static_assert(sizeof(struct kvm_ioeventfd) == 64, "KVM api 4.59");
_Static_assert(sizeof(struct kvm_msi) == 32, "KVM api 4.70");
_Static_assert(sizeof(struct kvm_clock_data) == 48, "KVM api 4.29");
_Static_assert(sizeof(struct kvm_device_attr) == 24, "KVM api 4.80");
_Static_assert(sizeof(struct kvm_regs) == 144, "KVM api 4.11");
_Static_assert(sizeof(struct kvm_sregs) == 312, "KVM api 4.13");
_Static_assert(sizeof(struct kvm_fpu) == 416, "KVM api 4.22");
_Static_assert(sizeof(struct kvm_lapic_state) == 1024, "KVM api 4.57");
_Static_assert(sizeof(struct kvm_enable_cap) == 104, "KVM api 4.37");

// Guest memory: another party writes it at any time, so each access is one volatile load or
// store of exactly this width; ring indices are ordered.
#define VMM_ACCESS(bits)                                                                          \
    static inline uint##bits##_t vmm_load_##bits(const void *p) {                                 \
        return __atomic_load_n((const volatile uint##bits##_t *)p, __ATOMIC_RELAXED);             \
    }                                                                                             \
    static inline void vmm_store_##bits(void *p, uint##bits##_t value) {                          \
        __atomic_store_n((volatile uint##bits##_t *)p, value, __ATOMIC_RELAXED);                  \
    }
VMM_ACCESS(8)
VMM_ACCESS(16)
VMM_ACCESS(32)
VMM_ACCESS(64)
#undef VMM_ACCESS

// A packed ring's descriptor is announced by its last 16 bits; the 64 around them are aligned, so
// that both sides see them change as one or in the order of the stores.
#define VMM_ORDERED_ACCESS(bits)                                                                  \
    static inline uint##bits##_t vmm_load_acquire_##bits(const void *p) {                         \
        return __atomic_load_n((const volatile uint##bits##_t *)p, __ATOMIC_ACQUIRE);             \
    }                                                                                             \
    static inline void vmm_store_release_##bits(void *p, uint##bits##_t value) {                  \
        __atomic_store_n((volatile uint##bits##_t *)p, value, __ATOMIC_RELEASE);                  \
    }
VMM_ORDERED_ACCESS(16)
VMM_ORDERED_ACCESS(64)
#undef VMM_ORDERED_ACCESS

// Orders a store of a ring index before the load of the other side's event index.
static inline void vmm_full_barrier(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#if defined(__x86_64__)
// <cpuid.h> belongs to a compiler module that cannot be built with _GNU_SOURCE set here.
static inline void vmm_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

static inline uint64_t vmm_time_stamp(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
#endif
