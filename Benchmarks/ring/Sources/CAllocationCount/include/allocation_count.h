// What the calling thread has used so far: heap allocations, and CPU time in nanoseconds.
#pragma once
#include <stdint.h>
uint64_t allocation_count(void);
uint64_t thread_cpu_ns(void);
