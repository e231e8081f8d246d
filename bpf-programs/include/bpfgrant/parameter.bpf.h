// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Parameters that are load-time constants:
//
//   BPFGRANT_PARAMETER __u32 snap_length = 64;
//
// and in the manifest
//
//   parameter { name: "snap_length" integer { min: 1 max: 64 }
//               constant: "snap_length" default { integer: 64 } }
//
// The verifier knows an instance's values and leaves out what they rule out. At
// admission it knows none: a program has to be safe with any value, so that
// each one that the manifest allows loads.

#ifndef BPFGRANT_PARAMETER_BPF_H_
#define BPFGRANT_PARAMETER_BPF_H_

#include <bpf/bpf_helpers.h>
#include <bpfgrant/parameter.h>

#define BPFGRANT_PARAMETER SEC(".rodata.parameter") const volatile

#endif  // BPFGRANT_PARAMETER_BPF_H_
