// The header in C++, in a file where nothing else is declared.
#include "client/bpfgrant/bpfgrant.h"

bpfgrant_error error = BPFGRANT_ERROR_INIT;
bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
