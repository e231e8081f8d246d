# Headers that most files read are read once: half of what a file takes to
# compile. Every file still includes what it uses, and the sanitizer presets,
# which build without this, show it.
#
# bpfgrant_precompile_headers(<name> HEADERS <header>... LIBRARIES <library>...
#                             [OPTIONS <option>...])
#
# Makes <name>, whose headers others use. OPTIONS are what these compile with
# beyond the project's own: compilers take headers only with the same.
#
# bpfgrant_use_precompiled_headers(<name> <target>...)
include_guard(GLOBAL)

function(bpfgrant_precompile_headers name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "HEADERS;LIBRARIES;OPTIONS")
  # A library needs a file.
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${name}.cc")
  if(NOT EXISTS "${source}")
    file(WRITE "${source}" "")
  endif()
  add_library(${name} OBJECT "${source}")
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES})
  target_compile_options(${name} PRIVATE ${arg_OPTIONS})
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})
endfunction()

function(bpfgrant_use_precompiled_headers name)
  foreach(target IN LISTS ARGN)
    target_precompile_headers(${target} REUSE_FROM ${name})
    # There are none for what is not C++.
    get_target_property(sources ${target} SOURCES)
    list(FILTER sources EXCLUDE REGEX "\\.cc$")
    set_source_files_properties(${sources} TARGET_DIRECTORY ${target}
      PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
endfunction()
