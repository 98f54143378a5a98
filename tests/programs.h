// Running the programs themselves, as a user would.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "engine/error.h"
#include "engine/file.h"

namespace topolm {

struct Outcome {
  int status;          // exit status; 128 + the signal's number when one ended it
  std::string output;  // standard output and standard error
};

/// Where the Makefile put the program; those that only scripts run stay in the build directory.
inline std::string program(const std::string& name) {
  for (const std::string directory : {TOPOLM_BIN "/", TOPOLM_BIN "/build/"})
    if (fs::exists(directory + name)) return directory + name;
  fail("the program {} is missing; run make first", name);
}

/// Runs a shell command line to its end.
inline Outcome shell(const std::string& command) {
  FILE* pipe = popen(("{ " + command + "\n} 2>&1").c_str(), "r");
  require(pipe != nullptr, "cannot start a shell");
  Outcome outcome{};
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, n);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

/// Runs a program of ours; `before` may set limits or pipe something into it.
inline Outcome run_program(const std::string& name, const std::string& arguments,
                           const std::string& before = "") {
  return shell(before + program(name) + " " + arguments);
}

}  // namespace topolm
