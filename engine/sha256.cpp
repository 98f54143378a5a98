#include "engine/sha256.h"

#include <sha2.h>

namespace topolm {

std::string sha256(std::span<const std::byte> bytes) {
  char hex[SHA256_DIGEST_STRING_LENGTH];
  SHA256Data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), hex);
  return hex;
}

}  // namespace topolm
