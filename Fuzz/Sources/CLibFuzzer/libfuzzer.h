#pragma once

#include <stddef.h>
#include <stdint.h>

/* libFuzzer as a library: LLVM's documentation, "Using libFuzzer as a library". */
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *data, size_t count));
