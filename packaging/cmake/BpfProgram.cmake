# bpfgrant_add_bpf_object(<name>
#                         SOURCE <file.bpf.c>
#                         [INCLUDES <folder>...]
#                         [DEFINITIONS <NAME[=value]>...]
#                         OUTPUT <variable>)
#
# Compiles one BPF program to <name>.bpf.o in the current binary folder, as part
# of the default build. Defines the target <name>; sets <variable> in the
# caller's scope to the object's path. A target in another folder that reads
# that file says add_dependencies(<other> <name>).
#
# The object keeps its BTF and loses its DWARF, and holds no path of the build
# machine: the same source and compiler give the same bytes in any checkout, and
# so the same digest.
include_guard(GLOBAL)
include("${CMAKE_CURRENT_LIST_DIR}/Libbpf.cmake")

# Any clang with a BPF backend does, whatever compiles the C++. The unversioned
# name first: that is what the distribution chose.
find_program(BPFGRANT_BPF_CLANG
  NAMES clang clang-21 clang-20 clang-19 clang-18 clang-17 clang-16 clang-15
    clang-14
  DOC "clang that compiles the BPF programs")
find_program(BPFGRANT_BPF_STRIP
  NAMES llvm-strip llvm-strip-21 llvm-strip-20 llvm-strip-19 llvm-strip-18
    llvm-strip-17 llvm-strip-16 llvm-strip-15 llvm-strip-14
  DOC "llvm-strip that removes DWARF from the BPF programs")
mark_as_advanced(BPFGRANT_BPF_CLANG BPFGRANT_BPF_STRIP)
if(NOT BPFGRANT_BPF_CLANG OR NOT BPFGRANT_BPF_STRIP)
  message(FATAL_ERROR
    "The BPF programs need clang and llvm-strip. "
    "Run: packaging/dependencies/install")
endif()

# bpf_tracing.h reads registers by this name.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64|i.86)$")
  set(_bpf_architecture x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(_bpf_architecture arm64)
else()
  message(FATAL_ERROR
    "No name is known for ${CMAKE_SYSTEM_PROCESSOR} in bpf_tracing.h; "
    "add it to packaging/cmake/BpfProgram.cmake.")
endif()

# linux/types.h wants asm/types.h, which Debian keeps in the multiarch folder;
# clang -target bpf does not look there by itself.
set(_bpf_system_includes)
if(CMAKE_LIBRARY_ARCHITECTURE
    AND IS_DIRECTORY "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}")
  list(APPEND _bpf_system_includes
    -idirafter "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}")
endif()

function(bpfgrant_add_bpf_object name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE;OUTPUT"
    "INCLUDES;DEFINITIONS")
  if(NOT arg_SOURCE OR NOT arg_OUTPUT OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR
      "bpfgrant_add_bpf_object(${name}): SOURCE and OUTPUT are needed, "
      "INCLUDES and DEFINITIONS may follow; not understood: "
      "'${arg_UNPARSED_ARGUMENTS}'.")
  endif()
  cmake_path(ABSOLUTE_PATH arg_SOURCE NORMALIZE)
  set(object "${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o")
  set(unstripped "${CMAKE_CURRENT_BINARY_DIR}/${name}.unstripped.o")
  set(depfile "${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.d")

  set(flags)
  foreach(folder IN LISTS arg_INCLUDES)
    cmake_path(ABSOLUTE_PATH folder NORMALIZE)
    list(APPEND flags -I "${folder}")
  endforeach()
  foreach(definition IN LISTS arg_DEFINITIONS)
    list(APPEND flags "-D${definition}")
  endforeach()

  add_custom_command(
    OUTPUT "${object}"
    # -g for BTF. v3 is what Debian 12's clang 14 knows and every kernel from
    # 5.1 on runs; v4 would need clang 18 and kernel 6.6. -D_FORTIFY_SOURCE and
    # the stack protector, which distributions add, mean nothing here.
    COMMAND "${BPFGRANT_BPF_CLANG}" -target bpf -mcpu=v3 -g -O2 -std=gnu11
      -Wall -Wextra -Werror=implicit-function-declaration
      -Wno-unused-parameter -fno-stack-protector
      "-D__TARGET_ARCH_${_bpf_architecture}"
      "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=."
      "-ffile-prefix-map=${CMAKE_BINARY_DIR}=build"
      "-ffile-prefix-map=${BPFGRANT_LIBBPF_INCLUDE_DIR}=libbpf"
      -fdebug-compilation-dir=.
      ${flags}
      -isystem "${BPFGRANT_LIBBPF_INCLUDE_DIR}" ${_bpf_system_includes}
      -MD -MF "${depfile}" -MT "${object}"
      -c "${arg_SOURCE}" -o "${unstripped}"
    COMMAND "${BPFGRANT_BPF_STRIP}" -g -o "${object}" "${unstripped}"
    DEPENDS "${arg_SOURCE}"
    DEPFILE "${depfile}"
    BYPRODUCTS "${unstripped}"
    COMMENT "BPF program ${name}"
    VERBATIM)
  add_custom_target(${name} ALL DEPENDS "${object}")
  set(${arg_OUTPUT} "${object}" PARENT_SCOPE)
endfunction()
