# SPDX-License-Identifier: MIT
# What is installed where, and a Debian package of it: cpack -G DEB.

include(GNUInstallDirs)
set(shared ${CMAKE_CURRENT_SOURCE_DIR}/scripts)
install(TARGETS ppsh RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${shared}/man/ppsh.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${shared}/man/pp.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES ${shared}/completion/ppsh.bash RENAME ppsh
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
set(doc ${CMAKE_INSTALL_DATADIR}/doc/ppsh)
install(FILES README.md LICENSE ${shared}/man/coming-from-parallelpython.md
  DESTINATION ${doc})
install(DIRECTORY ${shared}/examples/ DESTINATION ${doc}/examples
  FILES_MATCHING PATTERN "*.lua")

# Debian's own packages put these elsewhere than what is installed by hand; the
# prefix is known when it is installed.
install(CODE "
  set(data \"${CMAKE_INSTALL_DATADIR}\")
  set(source \"${CMAKE_CURRENT_SOURCE_DIR}\")")
install(CODE [[
  set(zsh site-functions)
  if(CMAKE_INSTALL_PREFIX STREQUAL "/usr" AND EXISTS /etc/debian_version)
    set(zsh vendor-completions)
    file(INSTALL DESTINATION "${CMAKE_INSTALL_PREFIX}/${data}/doc/ppsh"
      TYPE FILE RENAME copyright FILES "${source}/LICENSE")
  endif()
  file(INSTALL DESTINATION "${CMAKE_INSTALL_PREFIX}/${data}/zsh/${zsh}"
    TYPE FILE FILES "${source}/scripts/completion/_ppsh")]])

# --- the package -------------------------------------------------------------

# The package that has a library which is opened when it is needed (core/
# lazylib.h), and which dpkg-shlibdeps therefore does not see.
function(ppsh_package out file otherwise)
  set(${out} ${otherwise} PARENT_SCOPE)
  find_program(PPSH_DPKG dpkg-query)
  find_program(PPSH_LDCONFIG ldconfig PATHS /sbin /usr/sbin)
  mark_as_advanced(PPSH_DPKG PPSH_LDCONFIG)
  if(NOT PPSH_DPKG OR NOT PPSH_LDCONFIG)
    return()
  endif()
  execute_process(COMMAND ${PPSH_LDCONFIG} -p OUTPUT_VARIABLE cache ERROR_QUIET)
  if(NOT cache MATCHES "${file} [^\n]*=> ([^\n]*)")
    return()
  endif()
  # dpkg knows the file by the name it was packed under, before /lib was a link.
  string(REGEX REPLACE "^/usr" "" bare ${CMAKE_MATCH_1})
  execute_process(COMMAND ${PPSH_DPKG} -S ${bare} /usr${bare}
    OUTPUT_VARIABLE owner ERROR_QUIET)
  if(owner MATCHES "^([^:\n]+):")
    set(${out} ${CMAKE_MATCH_1} PARENT_SCOPE)
  endif()
endfunction()

ppsh_package(readline libreadline.so.8 libreadline8)
ppsh_package(ssh2 libssh2.so.1 libssh2-1)
ppsh_package(crypto libcrypto.so.3 libssl3)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ppsh)
set(CPACK_PACKAGE_VENDOR "the ppsh authors")
set(CPACK_PACKAGE_CONTACT "the ppsh authors <ppsh@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY
  "Lua 5.4 interpreter that runs jobs on every core you own")
set(CPACK_PACKAGE_DESCRIPTION
  "ppsh is lua with a job server in it: functions are submitted as jobs and run
in worker processes on all CPUs of this machine, and of any machine that can be
reached over SSH, where nothing need be installed.")
set(CPACK_PACKAGE_INSTALL_DIRECTORY ppsh)
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_CURRENT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION interpreters)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "${readline}, ${ssh2}, ${crypto}")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS openssh-client)
include(CPack)
