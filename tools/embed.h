// Files that are part of the program, so that it needs no other at run time. The assembler reads them: C++20
// has no #embed. The Makefile must name them as prerequisites; the compiler does not.
#pragma once

/// A C string `symbol` of the file, which is named from the top of the project, where the compiler runs.
#define TOPOLM_EMBED(symbol, file)                                                         \
  asm(".pushsection .rodata\n" #symbol ":\n.incbin \"" file "\"\n.byte 0\n.popsection\n"); \
  extern "C" const char symbol[] __attribute__((visibility("hidden")))
