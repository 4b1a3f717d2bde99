"""Why a guest does not fit: every reason, in numbers and in words."""
