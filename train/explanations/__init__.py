"""What a trained run did inside, for a few clips: computed, collected, stored."""
