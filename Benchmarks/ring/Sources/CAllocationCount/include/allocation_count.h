// Counts the process's heap allocations.
#pragma once
#include <stdint.h>
uint64_t allocation_count(void);
