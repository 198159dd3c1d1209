"""A checklist of what a run needs: this machine, Ray, the capability, the storage. Changes nothing."""
