// What every main() does around its work: parse the flags, print one clear sentence when something is wrong,
// and exit with the status the README promises.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <string>

#include "engine/error.h"

namespace topolm {

/// "error: no such file", a line on standard error. Not fmt::print, which throws when nobody can read it.
inline void print_error(const std::string& kind, const std::string& message) {
  std::fputs((kind + ": " + message + "\n").c_str(), stderr);
}

/// Parses the command line with `app`, then runs `body`. Returns the exit status: 0 when done (or --help was
/// asked for), 1 for any Error or other exception, 2 for a wrong command line, 130 when interrupted.
inline int run_main(CLI::App& app, int argc, const char* const* argv, const std::function<void()>& body) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help: prints it
    print_error("error", fmt::format("{}; {} --help lists the flags", e.what(), argv[0]));
    return 2;
  }
  try {
    body();
    // What was printed may still be in the buffer, and the disk it goes to full.
    require(std::fflush(stdout) == 0 && !std::ferror(stdout), "cannot write to standard output");
    return 0;
  } catch (const Interrupted& e) {
    print_error("interrupted", e.what());
    return 130;
  } catch (const std::bad_alloc&) {
    print_error("error", "out of memory");
  } catch (const std::exception& e) {
    print_error("error", e.what());
  }
  return 1;
}

}  // namespace topolm
