"""The neural audio codec: waveform, latent, codes and back."""
