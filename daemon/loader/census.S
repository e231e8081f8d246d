// The object of bpf-programs/census, in the daemon itself.
        .section .rodata
        .balign 16
        .global bpfgrant_census_begin
        .global bpfgrant_census_end
bpfgrant_census_begin:
        .incbin CENSUS_OBJECT
bpfgrant_census_end:
        .section .note.GNU-stack, "", %progbits
