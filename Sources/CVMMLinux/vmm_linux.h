#pragma once
#define _GNU_SOURCE
#include <linux/kvm.h>
#include <liburing.h>
