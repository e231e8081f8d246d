// The object of bpf-programs/census/statistics.bpf.c, in the daemon itself.
        .section .rodata
        .balign 16
        .global bpfgrant_statistics_begin
        .global bpfgrant_statistics_end
bpfgrant_statistics_begin:
        .incbin STATISTICS_OBJECT
bpfgrant_statistics_end:
        .section .note.GNU-stack, "", %progbits
