// What Swift cannot import from the kernel's and libc's headers: request macros, variadic calls,
// function-like macros, volatile and atomic access. No logic lives here.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
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
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
    VMM_KVM_SET_MSRS = KVM_SET_MSRS,
    VMM_KVM_SET_CPUID2 = KVM_SET_CPUID2,
    VMM_KVM_GET_LAPIC = KVM_GET_LAPIC,
    VMM_KVM_SET_LAPIC = KVM_SET_LAPIC,
    VMM_KVM_GET_TSC_KHZ = KVM_GET_TSC_KHZ,
    VMM_KVM_GET_VCPU_EVENTS = KVM_GET_VCPU_EVENTS,

    VMM_TUNSETIFF = TUNSETIFF,
    VMM_TUNGETFEATURES = TUNGETFEATURES,
    VMM_TUNSETOFFLOAD = TUNSETOFFLOAD,
    VMM_TUNSETVNETHDRSZ = TUNSETVNETHDRSZ,
    VMM_TUNGETIFF = TUNGETIFF,
    VMM_SIOCSIFADDR = SIOCSIFADDR,
    VMM_SIOCSIFNETMASK = SIOCSIFNETMASK,
    VMM_SIOCSIFHWADDR = SIOCSIFHWADDR,
    VMM_SIOCGIFHWADDR = SIOCGIFHWADDR,
    VMM_SIOCGIFFLAGS = SIOCGIFFLAGS,
    VMM_SIOCSIFFLAGS = SIOCSIFFLAGS,
    VMM_SIOCSIFMTU = SIOCSIFMTU,
    VMM_SIOCGIFMTU = SIOCGIFMTU,
    VMM_SIOCGIFINDEX = SIOCGIFINDEX,

    VMM_TIOCGWINSZ = TIOCGWINSZ,
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

static inline int vmm_set_thread_name(const char *name) {
    return prctl(PR_SET_NAME, (unsigned long)name, 0, 0, 0);
}

static inline int vmm_get_thread_name(char *name) {
    return prctl(PR_GET_NAME, (unsigned long)name, 0, 0, 0);
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
_Static_assert(sizeof(struct kvm_irq_routing_entry) == 48, "KVM api 4.52");
_Static_assert(sizeof(struct kvm_irq_routing) == 8, "KVM api 4.52");
_Static_assert(sizeof(struct kvm_userspace_memory_region) == 32, "KVM api 4.35");
_Static_assert(sizeof(struct kvm_irqfd) == 32, "KVM api 4.75");
_Static_assert(sizeof(struct kvm_ioeventfd) == 64, "KVM api 4.59");
_Static_assert(sizeof(struct kvm_msi) == 32, "KVM api 4.70");
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

static inline uint16_t vmm_load_acquire_16(const void *p) {
    return __atomic_load_n((const volatile uint16_t *)p, __ATOMIC_ACQUIRE);
}

static inline void vmm_store_release_16(void *p, uint16_t value) {
    __atomic_store_n((volatile uint16_t *)p, value, __ATOMIC_RELEASE);
}

// Orders a store of a ring index before the load of the other side's event index.
static inline void vmm_full_barrier(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#if defined(__x86_64__)
// <cpuid.h> belongs to a compiler module that cannot be built with _GNU_SOURCE set here.
static inline void vmm_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}
#endif
