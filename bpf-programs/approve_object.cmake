# cmake "-DOBJECT=<file.bpf.o>[;<file.bpf.o>...]" -DTEMPLATE=<file.manifest.in>
#       -DOUTPUT=<folder> -DNAME=<name> -P approve_object.cmake
#
# Puts the objects and the manifest that names their digests into a catalog
# folder, with the modes that the loader asks for: nobody but the owner may write
# them. The first object becomes <name>.bpf.o, its digest is @SHA256@; further
# ones keep their names, and <file>.bpf.o has the digest @SHA256_<file>@.
set(modes OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
list(POP_FRONT OBJECT first)
file(SHA256 "${first}" SHA256)
file(COPY_FILE "${first}" "${OUTPUT}/${NAME}.bpf.o")
file(CHMOD "${OUTPUT}/${NAME}.bpf.o" PERMISSIONS ${modes})
foreach(object IN LISTS OBJECT)
  cmake_path(GET object FILENAME file)
  string(REPLACE ".bpf.o" "" stem "${file}")
  file(SHA256 "${object}" SHA256_${stem})
  file(COPY_FILE "${object}" "${OUTPUT}/${file}")
  file(CHMOD "${OUTPUT}/${file}" PERMISSIONS ${modes})
endforeach()
configure_file("${TEMPLATE}" "${OUTPUT}/${NAME}.manifest" @ONLY)
file(CHMOD "${OUTPUT}/${NAME}.manifest" PERMISSIONS ${modes})
# An unchanged manifest keeps its time, which would build it again for ever.
file(TOUCH_NOCREATE "${OUTPUT}/${NAME}.manifest")
