// Tells ThreadSanitizer of the ways into and out of a `Synchronization.Mutex` that it cannot see.
// Taking a free mutex, and giving back one that nobody waits for, are atomics in instrumented code;
// the other ways lead through the kernel, in Swift's library, which has no instrumentation.
// Preloaded by ./dev test --sanitize thread.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

extern void __tsan_acquire(void *address);
extern void __tsan_release(void *address);

// The mutex is in Swift's context register.
#define MUTEX __attribute__((swift_context)) void *mutex

// `_MutexHandle._lockSlow(UInt32)`
#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
// `_MutexHandle._unlockSlow()`
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

typedef __attribute__((swiftcall)) void lock_function(uint32_t thread, MUTEX);
typedef __attribute__((swiftcall)) void unlock_function(MUTEX);

__attribute__((swiftcall)) void lock_slow(uint32_t thread, MUTEX) __asm__(LOCK);
__attribute__((swiftcall)) void unlock_slow(MUTEX) __asm__(UNLOCK);

__attribute__((swiftcall)) void lock_slow(uint32_t thread, MUTEX) {
    ((lock_function *)dlsym(RTLD_NEXT, LOCK))(thread, mutex);
    __tsan_acquire(mutex);
}

__attribute__((swiftcall)) void unlock_slow(MUTEX) {
    __tsan_release(mutex);
    ((unlock_function *)dlsym(RTLD_NEXT, UNLOCK))(mutex);
}
