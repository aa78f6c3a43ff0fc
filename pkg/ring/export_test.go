package ring

// At gives the tests the owner of a hash.
func At(r *Ring, hash uint32) int { return r.at(hash) }
