#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace topolm {

/// Lower-case hexadecimal SHA-256 (FIPS 180-4).
std::string sha256(std::span<const std::byte> bytes);

}  // namespace topolm
